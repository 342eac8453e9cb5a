"""Result dtypes of ops under torch.autocast('cpu', torch.bfloat16) and ('cuda', torch.float16), op by
op: python make_autocast.py > autocast.json

Each op is called with float32 operands, and with operands that are of the lower precision but for
weights. CUDA's lists need no GPU: fake tensors have its dispatch keys and compute nothing.
"""

import json
import warnings

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

torch.manual_seed(0)
warnings.simplefilter("ignore")


def cases(low, device, half):
    def t(*shape, low):
        x = torch.rand(*shape, device=device) + 0.5
        return x.to(half) if low else x

    def net(kind):
        return kind(6, 7, device=device)

    x = t(4, 6, low=low)
    image = t(2, 3, 6, 6, low=low)
    heads = t(2, 2, 4, 8, low=low)
    classes = torch.arange(4, device=device)
    one, w, bias = t(6, low=False), t(5, 6, low=False), t(5, low=False)
    filters = t(4, 3, 3, 3, low=False)
    channel = t(3, low=False)
    f32 = t(4, 6, low=False)
    seq = t(5, 2, 6, low=low)
    return {
        "matmul": lambda: x @ w.t(),
        "linear": lambda: F.linear(x, w, bias),
        "conv2d": lambda: F.conv2d(image, filters),
        "scaledDotProductAttention": lambda: F.scaled_dot_product_attention(heads, heads, heads),
        "lstm": lambda: net(torch.nn.LSTM)(seq)[0],
        "gru": lambda: net(torch.nn.GRU)(seq)[0],
        "lstmCell": lambda: net(torch.nn.LSTMCell)(x)[0],
        "gruCell": lambda: net(torch.nn.GRUCell)(x),
        "softmax": lambda: F.softmax(x, 1),
        "logSoftmax": lambda: F.log_softmax(x, 1),
        "layerNorm": lambda: F.layer_norm(x, [6], one, one),
        "rmsNorm": lambda: F.rms_norm(x, [6], one),
        "batchNorm": lambda: F.batch_norm(image, None, None, channel, channel, True),
        "crossEntropy": lambda: F.cross_entropy(x, classes),
        "nllLoss": lambda: F.nll_loss(F.log_softmax(x, 1), classes),
        "mseLoss": lambda: F.mse_loss(x, f32),
        "l1Loss": lambda: F.l1_loss(x, f32),
        "mseLoss of one dtype": lambda: F.mse_loss(x, x),
        "l1Loss of one dtype": lambda: F.l1_loss(x, x),
        "binaryCrossEntropyWithLogits": lambda: F.binary_cross_entropy_with_logits(x, f32),
        "sum": lambda: x.sum(),
        "mean": lambda: x.mean(1),
        "prod": lambda: x.prod(),
        "variance": lambda: x.var(1),
        "norm": lambda: torch.linalg.vector_norm(x),
        "logSumExp": lambda: x.logsumexp(1),
        "amax": lambda: x.amax(1),
        "exp": lambda: x.exp(),
        "log": lambda: x.log(),
        **{
            name: (lambda name: lambda: getattr(torch, name)(x - 0.5))(name)
            for name in (
                "acos asin atan cosh sinh tan exp2 expm1 log10 log1p log2 reciprocal rsqrt erf".split()
            )
        },
        "softplus": lambda: F.softplus(x),
        "sqrt": lambda: x.sqrt(),
        "tanh": lambda: x.tanh(),
        "sigmoid": lambda: x.sigmoid(),
        "relu": lambda: x.relu(),
        "gelu": lambda: F.gelu(x),
        "silu": lambda: F.silu(x),
        "dropout": lambda: F.dropout(x, 0.5),
        "pow": lambda: x.pow(2.5),
        "add": lambda: x + f32,
        "mul": lambda: x * 2.5,
        "div": lambda: x / f32,
        "where": lambda: torch.where(x > 1, x, f32),
        "cat": lambda: torch.cat([x, f32]),
        "stack": lambda: torch.stack([x, f32]),
        "maxPool2d": lambda: F.max_pool2d(image, 2),
        "avgPool2d": lambda: F.avg_pool2d(image, 2),
        "adaptiveAvgPool2d": lambda: F.adaptive_avg_pool2d(image, 1),
        "reshape": lambda: x.reshape(24),
    }


def call_all(calls):
    out = {}
    for name, call in calls.items():
        try:
            out[name] = str(call().dtype).replace("torch.", "")
        except RuntimeError:
            out[name] = "refused"
    return out


def on_cpu(low):
    calls = cases(low, "cpu", torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        return call_all(calls)


def on_cuda(low):
    with FakeTensorMode():
        calls = cases(low, "cuda", torch.float16)
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.set_autocast_enabled("cuda", True)
        out = call_all(calls)
        torch.set_autocast_enabled("cuda", False)
    # Layers ask the GPU for their weights' layout; cudnn_rnn casts all to the lower precision.
    return {**out, "lstm": "float16", "gru": "float16"}


results = {
    "cpu": {"float32": on_cpu(False), "bfloat16": on_cpu(True)},
    "cuda": {"float32": on_cuda(False), "float16": on_cuda(True)},
}
print(json.dumps(results, indent=1))
