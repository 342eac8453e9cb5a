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
from common import normal, op_case


def layer_norm(x, row, weight, bias, eps=1e-5):
    return op_case(
        "layerNorm",
        lambda x, weight, bias: F.layer_norm(x, row, weight, bias, eps),
        {"x": x, "weight": weight, "bias": bias},
        {"normalizedShape": row, "eps": eps},
    )


def rms_norm(x, row, weight, eps=None):
    return op_case(
        "rmsNorm",
        lambda x, weight: F.rms_norm(x, row, weight, eps),
        {"x": x, "weight": weight},
        {"normalizedShape": row, "eps": eps},
    )


def embedding(index, weight, padding=None):
    return op_case(
        "embedding",
        lambda index, weight: F.embedding(index, weight, padding_idx=padding),
        {"index": index, "weight": weight},
        {} if padding is None else {"paddingIdx": padding},
    )


def activation(op, f, options={}):
    x = torch.cat([normal(6), torch.tensor([0.5, -0.001, 3.0, -4.0, 25.0, -25.0])])
    return op_case(op, lambda x: f(x), {"x": x}, options)


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
