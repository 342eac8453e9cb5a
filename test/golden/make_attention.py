"""Writes attention.json: what PyTorch gives for scaled dot product attention on small inputs.

  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python make_attention.py

All in float64. Each case has inputs, options (in this library's words), the result and the
gradients of sum(result * weights).
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from common import case, normal


def attention(q, k, v, mask=None, causal=False, scale=None):
    def f(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)

    options = {"isCausal": causal} | ({} if scale is None else {"scale": scale})
    return case(f, {"q": q, "k": k, "v": v, "mask": mask}, options)


def booleans(*shape):
    mask = torch.rand(shape) < 0.6
    mask[..., 1, :] = False  # a query that sees no key
    return mask


cases = [
    attention(normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 4)),
    attention(normal(1, 2, 5, 3), normal(1, 2, 5, 3), normal(1, 2, 5, 3), causal=True),
    attention(normal(1, 2, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 2), causal=True),
    attention(normal(1, 2, 5, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 2), causal=True, scale=0.3),
    attention(normal(2, 1, 3, 2), normal(2, 1, 4, 2), normal(2, 1, 4, 3), booleans(3, 4)),
    attention(normal(2, 2, 3, 2), normal(2, 2, 4, 2), normal(2, 2, 4, 2), booleans(2, 1, 3, 4)),
    attention(normal(2, 2, 3, 2), normal(2, 2, 4, 2), normal(2, 2, 4, 2), normal(1, 2, 1, 4)),
    attention(normal(3, 2), normal(4, 2), normal(4, 3), scale=-1.5),
    attention(normal(2, 3, 2), normal(2, 4, 2), normal(2, 4, 3)),
    attention(normal(2, 1, 2, 3, 2), normal(1, 2, 2, 4, 2), normal(2, 2, 1, 4, 2)),
    attention(normal(1, 1, 2, 80), normal(1, 1, 3, 80), normal(1, 1, 3, 80), scale=0.0),
]

path = Path(__file__).parent / "attention.json"
path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}))
