"""Writes attention.json: what PyTorch gives for scaled dot product attention on small inputs.

  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python make_attention.py

All in float64. Each case has inputs, options (in this library's words), the result and the
gradients of sum(result * weights).
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def normal(*shape):
    return torch.round(torch.randn(shape), decimals=3)


def pack(t):
    # 12 digits are what the comparison needs.
    flat = t.detach().flatten().tolist()
    if t.dtype == torch.bool:
        return {"shape": list(t.shape), "dtype": "int64", "data": [int(v) for v in flat]}
    return {"shape": list(t.shape), "data": [float(f"{v:.12g}") for v in flat]}


def case(q, k, v, mask=None, causal=False, scale=None):
    inputs = {"q": q, "k": k, "v": v, "mask": mask}
    names = [n for n, t in inputs.items() if t is not None and t.is_floating_point()]
    for name in names:
        inputs[name].requires_grad_()
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    weights = normal(*y.shape)
    (y * weights).sum().backward()
    return {
        "options": {"isCausal": causal} | ({} if scale is None else {"scale": scale}),
        "inputs": {n: None if t is None else pack(t) for n, t in inputs.items()},
        "weights": pack(weights),
        "y": pack(y),
        "grads": {n: pack(inputs[n].grad) for n in names},
    }


def booleans(*shape):
    mask = torch.rand(shape) < 0.6
    mask[..., 1, :] = False  # a query that sees no key
    return mask


cases = [
    case(normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 4)),
    case(normal(1, 2, 5, 3), normal(1, 2, 5, 3), normal(1, 2, 5, 3), causal=True),
    case(normal(1, 2, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 2), causal=True),
    case(normal(1, 2, 5, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 2), causal=True, scale=0.3),
    case(normal(2, 1, 3, 2), normal(2, 1, 4, 2), normal(2, 1, 4, 3), booleans(3, 4)),
    case(normal(2, 2, 3, 2), normal(2, 2, 4, 2), normal(2, 2, 4, 2), booleans(2, 1, 3, 4)),
    case(normal(2, 2, 3, 2), normal(2, 2, 4, 2), normal(2, 2, 4, 2), normal(1, 2, 1, 4)),
    case(normal(3, 2), normal(4, 2), normal(4, 3), scale=-1.5),
    case(normal(2, 3, 2), normal(2, 4, 2), normal(2, 4, 3)),
    case(normal(2, 1, 2, 3, 2), normal(1, 2, 2, 4, 2), normal(2, 2, 1, 4, 2)),
    case(normal(1, 1, 2, 80), normal(1, 1, 3, 80), normal(1, 1, 3, 80), scale=0.0),
]

path = Path(__file__).parent / "attention.json"
path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}))
