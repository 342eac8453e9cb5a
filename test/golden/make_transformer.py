"""Writes transformer.json: what PyTorch gives for the layers that transformers are made of.

  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python make_transformer.py

All in float64. Each case has inputs, options (in this library's words), the result and the
gradients of sum(result * weights).
"""

import json
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def normal(*shape):
    return torch.round(torch.randn(shape), decimals=3)


def pack(t):
    # 12 digits are what the comparison needs.
    flat = t.detach().flatten().tolist()
    if t.dtype == torch.int64:
        return {"shape": list(t.shape), "dtype": "int64", "data": flat}
    return {"shape": list(t.shape), "data": [float(f"{v:.12g}") for v in flat]}


def case(op, f, inputs, options):
    """f(**inputs) gives a tensor; gradients of all float inputs."""
    names = [n for n, t in inputs.items() if t is not None and t.is_floating_point()]
    for name in names:
        inputs[name].requires_grad_()
    y = f(**inputs)
    weights = normal(*y.shape)
    (y * weights).sum().backward()
    return {
        "op": op,
        "options": options,
        "inputs": {n: None if t is None else pack(t) for n, t in inputs.items()},
        "weights": pack(weights),
        "y": pack(y),
        "grads": {n: pack(inputs[n].grad) for n in names},
    }


def layer_norm(x, row, weight, bias, eps=1e-5):
    return case(
        "layerNorm",
        lambda x, weight, bias: F.layer_norm(x, row, weight, bias, eps),
        {"x": x, "weight": weight, "bias": bias},
        {"normalizedShape": row, "eps": eps},
    )


def rms_norm(x, row, weight, eps=None):
    return case(
        "rmsNorm",
        lambda x, weight: F.rms_norm(x, row, weight, eps),
        {"x": x, "weight": weight},
        {"normalizedShape": row, "eps": eps},
    )


def embedding(index, weight, padding=None):
    return case(
        "embedding",
        lambda index, weight: F.embedding(index, weight, padding_idx=padding),
        {"index": index, "weight": weight},
        {} if padding is None else {"paddingIdx": padding},
    )


def activation(op, f, options={}):
    x = torch.cat([normal(6), torch.tensor([0.5, -0.001, 3.0, -4.0, 25.0, -25.0])])
    return case(op, lambda x: f(x), {"x": x}, options)


ops = [
    layer_norm(normal(3, 5), [5], normal(5), normal(5)),
    layer_norm(normal(2, 3, 4), [3, 4], normal(3, 4), None, eps=0.1),
    layer_norm(normal(2, 2, 7), [7], None, None),
    layer_norm(1000 + normal(4, 6), [6], normal(6), normal(6)),
    rms_norm(normal(3, 5), [5], normal(5)),
    rms_norm(normal(2, 3, 4), [3, 4], normal(3, 4), eps=0.1),
    rms_norm(normal(2, 2, 7), [7], None),
    embedding(torch.tensor([[0, 4, 2], [2, 2, 1]]), normal(5, 3)),
    embedding(torch.tensor([3, 0, 3, 1]), normal(4, 2), padding=3),
    embedding(torch.tensor([3, 0, 3, 1]), normal(4, 2), padding=-4),
    embedding(torch.tensor(2), normal(3, 4)),
    activation("gelu", F.gelu),
    activation("gelu", lambda x: F.gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    activation("silu", F.silu),
    activation("elu", F.elu),
    activation("elu", lambda x: F.elu(x, 0.3), {"alpha": 0.3}),
    activation("leakyRelu", F.leaky_relu),
    activation("leakyRelu", lambda x: F.leaky_relu(x, 0.2), {"negativeSlope": 0.2}),
    activation("softplus", F.softplus),
    activation("softplus", lambda x: F.softplus(x, 2, 1), {"beta": 2, "threshold": 1}),
]

modules = {
    "LayerNorm": nn.LayerNorm([2, 3]),
    "LayerNorm without bias": nn.LayerNorm(3, bias=False),
    "LayerNorm without affine": nn.LayerNorm(3, elementwise_affine=False),
    "RMSNorm": nn.RMSNorm(3),
    "Embedding": nn.Embedding(4, 2, padding_idx=1),
}
result = {
    "torch": torch.__version__,
    "ops": ops,
    "stateDicts": {
        name: [[key, list(t.shape)] for key, t in m.state_dict().items()]
        for name, m in modules.items()
    },
}
Path(__file__).with_name("transformer.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
