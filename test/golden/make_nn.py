"""Writes nn.json: what PyTorch gives for small inputs to layers, losses, optimizers and schedules.

  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python make_nn.py && npx biome format --write nn.json

All in float64. Each op case has inputs, options (in this library's words), the results and the
gradients of sum(result * weights).
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from common import normal, op_case, pack


def positive(*shape):
    return torch.round(torch.rand(shape) + 0.5, decimals=3)


def classes(count, *shape):
    return torch.randint(count, shape)


def conv(x, w, bias, **options):
    torch_options = dict(options)
    return op_case(
        "conv2d",
        lambda x, w, bias: F.conv2d(x, w, bias, **torch_options),
        {"x": x, "w": w, "bias": bias},
        options,
    )


ops = [
    conv(normal(2, 2, 5, 4), normal(3, 2, 3, 2), normal(3)),
    conv(normal(1, 4, 6, 5), normal(4, 2, 3, 3), None, stride=[2, 1], padding=[1, 2], groups=2),
    conv(normal(1, 2, 7, 6), normal(2, 2, 2, 3), normal(2), dilation=[2, 1], padding=1),
    conv(normal(1, 1, 5, 5), normal(2, 1, 4, 2), normal(2), padding="same"),
    conv(normal(1, 1, 6, 6), normal(1, 1, 2, 4), None, padding="same", dilation=[3, 1]),
    conv(normal(2, 5, 5), normal(1, 2, 3, 3), None, padding="valid"),
    conv(normal(2, 3, 4, 4), normal(3, 1, 3, 3), normal(3), groups=3, padding=1),
]


def pool(x, kernel, **options):
    words = {"ceilMode": "ceil_mode"}
    torch_options = {words.get(k, k): v for k, v in options.items()}
    row = op_case(
        "maxPool2d", lambda x: F.max_pool2d(x, kernel, **torch_options), {"x": x}, options
    )
    row["kernel"] = kernel
    _, index = F.max_pool2d(x.detach(), kernel, return_indices=True, **torch_options)
    row["indices"] = pack(index)
    return row


ops += [
    pool(normal(2, 2, 6, 5), 2),
    pool(normal(1, 2, 7, 7), [3, 2], stride=[2, 1], padding=[1, 0]),
    pool(normal(1, 2, 6, 7), 3, stride=2, ceilMode=True),
    pool(normal(1, 1, 8, 7), 2, stride=2, dilation=2, padding=1, ceilMode=True),
    pool(normal(2, 5, 5), 2, stride=1),
]


def average(x, kernel, **options):
    words = {"ceilMode": "ceil_mode", "countIncludePad": "count_include_pad"}
    torch_options = {words.get(k, k): v for k, v in options.items()}
    row = op_case(
        "avgPool2d", lambda x: F.avg_pool2d(x, kernel, **torch_options), {"x": x}, options
    )
    row["kernel"] = kernel
    return row


def adaptive(x, size):
    row = op_case("adaptiveAvgPool2d", lambda x: F.adaptive_avg_pool2d(x, size), {"x": x})
    row["kernel"] = size
    return row


def norm(x, affine, training, momentum=0.1, eps=1e-5):
    c = x.shape[1]
    running_mean, running_var = normal(c), positive(c)
    inputs = {
        "x": x,
        "weight": normal(c) if affine else None,
        "bias": normal(c) if affine else None,
        "runningMean": running_mean.clone(),
        "runningVar": running_var.clone(),
    }

    def f(x, weight, bias, **_):
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)

    names = ["x", "weight", "bias"] if affine else ["x"]
    options = {"training": training, "momentum": momentum, "eps": eps}
    row = op_case("batchNorm", f, inputs, options, names)
    row["after"] = {"runningMean": pack(running_mean), "runningVar": pack(running_var)}
    return row


ops += [
    norm(normal(3, 2, 2, 2), True, True),
    norm(normal(6, 3), True, True, momentum=0.3, eps=1e-3),
    norm(normal(2, 2, 4), False, True),
    norm(normal(3, 2, 2, 2), True, False),
    norm(normal(4, 2), False, False),
]


def class_loss(op, x, target, **options):
    words = {"ignoreIndex": "ignore_index", "labelSmoothing": "label_smoothing"}
    weight = options.pop("weight", None)
    torch_options = {words.get(k, k): v for k, v in options.items()}
    function = {"crossEntropy": F.cross_entropy, "nllLoss": F.nll_loss}[op]
    return op_case(
        op,
        lambda x, target, weight: function(x, target, weight=weight, **torch_options),
        {"x": x, "target": target, "weight": weight},
        options,
        ["x"],
    )


for reduction in ["mean", "sum", "none"]:
    for weight in [None, positive(4)]:
        for smoothing in [0.0, 0.1]:
            ops.append(
                class_loss(
                    "crossEntropy",
                    normal(5, 4),
                    torch.tensor([0, 3, 2, 3, 1]),
                    weight=weight,
                    reduction=reduction,
                    labelSmoothing=smoothing,
                    ignoreIndex=2,
                )
            )
            q = torch.softmax(normal(3, 4), 1)
            ops.append(
                class_loss(
                    "crossEntropy",
                    normal(3, 4),
                    q.round(decimals=4),
                    weight=weight,
                    reduction=reduction,
                    labelSmoothing=smoothing,
                )
            )
        ops.append(
            class_loss(
                "nllLoss",
                normal(5, 4),
                torch.tensor([0, -100, 2, 3, 1]),
                weight=weight,
                reduction=reduction,
            )
        )
        ops.append(
            class_loss(
                "crossEntropy",
                normal(2, 4, 2, 3),
                classes(4, 2, 2, 3),
                weight=weight,
                reduction=reduction,
            )
        )
ops += [
    class_loss("crossEntropy", normal(4), torch.tensor(2)),
    class_loss("crossEntropy", normal(4), torch.tensor(2), labelSmoothing=0.2),
    class_loss(
        "crossEntropy",
        normal(2, 4, 3),
        torch.softmax(normal(2, 4, 3), 1).round(decimals=4),
        weight=positive(4),
    ),
    class_loss("crossEntropy", normal(2, 3, 2), classes(3, 2, 2), labelSmoothing=0.3),
]


def pair_loss(op, function, x, target, **options):
    weight, pos_weight = options.pop("weight", None), options.pop("posWeight", None)

    def f(x, target, weight=None, posWeight=None):
        extra = {}
        if weight is not None:
            extra["weight"] = weight
        if posWeight is not None:
            extra["pos_weight"] = posWeight
        return function(x, target, **extra, **options)

    inputs = {"x": x, "target": target}
    if weight is not None:
        inputs["weight"] = weight
    if pos_weight is not None:
        inputs["posWeight"] = pos_weight
    return op_case(op, f, inputs, options, ["x", "target"])


bce = F.binary_cross_entropy_with_logits
for reduction in ["mean", "sum", "none"]:
    ops += [
        pair_loss("mseLoss", F.mse_loss, normal(3, 2), normal(3, 2), reduction=reduction),
        pair_loss("l1Loss", F.l1_loss, normal(3, 2), normal(3, 2), reduction=reduction),
        pair_loss(
            "binaryCrossEntropyWithLogits",
            bce,
            30 * normal(3, 2),
            torch.rand(3, 2).round(decimals=3),
            reduction=reduction,
        ),
        pair_loss(
            "binaryCrossEntropyWithLogits",
            bce,
            normal(3, 2),
            torch.rand(3, 2).round(decimals=3),
            weight=positive(3, 1),
            posWeight=positive(2),
            reduction=reduction,
        ),
    ]


ops += [
    average(normal(2, 2, 4, 6), 2),
    average(normal(1, 2, 7, 6), [3, 2], stride=[2, 1], padding=[1, 0]),
    average(normal(1, 1, 6, 7), 3, stride=2, padding=1, ceilMode=True),
    average(normal(2, 6, 7), 3, stride=2, padding=1, ceilMode=True, countIncludePad=False),
    adaptive(normal(2, 3, 5, 7), [2, 3]),
    adaptive(normal(2, 4, 4), 1),
    adaptive(normal(1, 2, 3, 5), [None, 8]),
]


def optimizer_run(name, **options):
    words = {"weightDecay": "weight_decay"}
    torch_options = {words.get(k, k): v for k, v in options.items()}
    start = [normal(2, 3), normal(4)]
    params = [p.clone().requires_grad_() for p in start]
    optimizer = getattr(torch.optim, name)(params, **torch_options)
    grads, after = [], []
    for i in range(10):
        step = [normal(2, 3), normal(4)]
        # The second parameter has no gradient in two of the steps.
        if i in (0, 4):
            step[1] = None
        for p, g in zip(params, step):
            p.grad = None if g is None else g.clone()
        optimizer.step()
        grads.append([None if g is None else pack(g) for g in step])
        after.append([pack(p) for p in params])
    state = optimizer.state_dict()
    return {
        "name": name,
        "options": options,
        "start": [pack(p) for p in start],
        "grads": grads,
        "after": after,
        "stateKeys": sorted(k for k, v in state["state"].get(0, {}).items() if v is not None),
        "groupKeys": sorted(state["param_groups"][0]),
    }


optimizers = [
    optimizer_run("SGD", lr=0.1),
    optimizer_run("SGD", lr=0.1, momentum=0.9),
    optimizer_run("SGD", lr=0.1, momentum=0.9, dampening=0.3, weightDecay=0.05),
    optimizer_run("SGD", lr=0.1, momentum=0.8, nesterov=True, weightDecay=0.01),
    optimizer_run("SGD", lr=0.1, momentum=0.5, maximize=True),
    optimizer_run("Adam", lr=0.01),
    optimizer_run("Adam", lr=0.01, betas=[0.8, 0.95], eps=1e-4, weightDecay=0.1),
    optimizer_run("Adam", lr=0.01, amsgrad=True),
    optimizer_run("Adam", lr=0.01, maximize=True),
    optimizer_run("AdamW", lr=0.01),
    optimizer_run("AdamW", lr=0.02, weightDecay=0.2, amsgrad=True),
    optimizer_run("AdamW", lr=0.02, weightDecay=0.2, maximize=True),
]


def schedule(name, options, **torch_options):
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.2)
    s = getattr(torch.optim.lr_scheduler, name)(optimizer, **torch_options)
    rates = [[g["lr"] for g in optimizer.param_groups]]
    for _ in range(14):
        optimizer.step()
        s.step()
        rates.append([g["lr"] for g in optimizer.param_groups])
    return {"name": name, "options": options, "rates": rates}


schedules = [
    schedule("StepLR", {"stepSize": 3, "gamma": 0.5}, step_size=3, gamma=0.5),
    schedule("MultiStepLR", {"milestones": [2, 5, 5]}, milestones=[2, 5, 5]),
    schedule("ExponentialLR", {"gamma": 0.9}, gamma=0.9),
    schedule("CosineAnnealingLR", {"tMax": 6}, T_max=6),
    schedule("CosineAnnealingLR", {"tMax": 20, "etaMin": 0.01}, T_max=20, eta_min=0.01),
    schedule("LinearLR", {}),
    schedule(
        "LinearLR",
        {"startFactor": 0.1, "endFactor": 0.5, "totalIters": 4},
        start_factor=0.1,
        end_factor=0.5,
        total_iters=4,
    ),
    schedule(
        "OneCycleLR",
        {"maxLr": 0.3, "totalSteps": 15},
        max_lr=0.3,
        total_steps=15,
        cycle_momentum=False,
    ),
    schedule(
        "OneCycleLR",
        {
            "maxLr": 0.3,
            "totalSteps": 15,
            "pctStart": 0.4,
            "annealStrategy": "linear",
            "divFactor": 10,
            "finalDivFactor": 100,
        },
        max_lr=0.3,
        total_steps=15,
        pct_start=0.4,
        anneal_strategy="linear",
        div_factor=10,
        final_div_factor=100,
        cycle_momentum=False,
    ),
]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, bias=False),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
        )
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(4, 2), torch.nn.Linear(4, 3)])
        self.offset = torch.nn.Parameter(torch.zeros(2, 1))
        self.norm = torch.nn.BatchNorm1d(3, affine=False)
        self.tied = self.heads[0]
        self.loss = torch.nn.CrossEntropyLoss(weight=torch.ones(3))


net = Net()
module = {
    "stateDict": [[key, list(t.shape)] for key, t in net.state_dict().items()],
    "parameters": [name for name, _ in net.named_parameters()],
    "buffers": [name for name, _ in net.named_buffers()],
    "modules": [name for name, _ in net.named_modules()],
    "gains": {
        "linear": 1.0,
        "tanh": torch.nn.init.calculate_gain("tanh"),
        "relu": torch.nn.init.calculate_gain("relu"),
        "leakyRelu": torch.nn.init.calculate_gain("leaky_relu", math.sqrt(5)),
        "selu": torch.nn.init.calculate_gain("selu"),
    },
}


def clipped(max_norm, norm_type):
    params = [torch.zeros(2, 2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    grads = [normal(2, 2), normal(3)]
    for p, g in zip(params, grads):
        p.grad = g.clone()
    total = torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type)
    return {
        "maxNorm": max_norm,
        "normType": "inf" if math.isinf(norm_type) else norm_type,
        "grads": [pack(g) for g in grads],
        "total": total.item(),
        "after": [pack(p.grad) for p in params],
    }


result = {
    "torch": torch.__version__,
    "ops": ops,
    "optimizers": optimizers,
    "schedules": schedules,
    "module": module,
    "clipped": [clipped(1.0, 2.0), clipped(100.0, 2.0), clipped(1.0, 1.0), clipped(0.5, math.inf)],
}
Path(__file__).with_name("nn.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
