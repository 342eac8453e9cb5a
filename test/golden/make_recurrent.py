"""Writes recurrent.json: what PyTorch's recurrent layers and cells give for small inputs.

  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python make_recurrent.py

All in float64: the state dictionary, the input and the state before, the results in order, and the
gradients of the sum of all results times their weights. And of layers in bfloat16 the error of each
against float64, as root mean squares, on the same rounded values.
"""

import json
from pathlib import Path

import torch
from torch import nn
from common import normal, pack


def flat(results):
    return [results] if isinstance(results, torch.Tensor) else [t for r in results for t in flat(r)]


def case(kind, sizes, x, state, options):
    words = {"num_layers": "numLayers", "batch_first": "batchFirst"}
    layer = getattr(nn, kind)(*sizes, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.round(p, decimals=3))
    inputs = [x, *state]
    for t in inputs:
        t.requires_grad_()
    is_lstm = kind.startswith("LSTM")
    before = tuple(state) if is_lstm else state[0] if state else None
    results = flat(layer(x, before) if state else layer(x))
    weights = [normal(*t.shape) for t in results]
    sum((t * w).sum() for t, w in zip(results, weights)).backward()
    return {
        "kind": kind,
        "sizes": sizes,
        "options": {words.get(k, k): v for k, v in options.items()},
        "parameters": {n: pack(p) for n, p in layer.named_parameters()},
        "inputs": [pack(t) for t in inputs],
        "weights": [pack(t) for t in weights],
        "results": [pack(t) for t in results],
        "grads": [pack(t.grad) for t in [*inputs, *layer.parameters()]],
    }


cases = []
for kind, parts in (("LSTM", 2), ("GRU", 1)):
    state = lambda *shape: [normal(*shape) for _ in range(parts)]
    cases += [
        case(kind, [3, 2], normal(4, 2, 3), [], {}),
        case(kind, [3, 2], normal(2, 4, 3), state(1, 2, 2), {"batch_first": True}),
        case(
            kind, [2, 3], normal(3, 2, 2), state(4, 2, 3), {"num_layers": 2, "bidirectional": True}
        ),
        case(kind, [2, 2], normal(3, 2), state(2, 2), {"num_layers": 2, "bias": False}),
        case(kind, [1, 1], normal(1, 1, 1), [], {"bidirectional": True}),
        case(kind + "Cell", [3, 2], normal(2, 3), state(2, 2), {}),
        case(kind + "Cell", [3, 2], normal(3), [], {"bias": False}),
    ]

def error(low, exact):
    return float((low.double() - exact).square().mean().sqrt())


def half_case(kind, sizes, steps, batch):
    """A layer in bfloat16, as `case` but for what it gives: errors instead of values."""
    low = getattr(nn, kind)(*sizes).bfloat16()
    exact = getattr(nn, kind)(*sizes).double()
    exact.load_state_dict(low.state_dict())
    values = normal(steps, batch, sizes[0]).bfloat16()
    weights = normal(steps, batch, sizes[1]).bfloat16()
    given = {}
    for layer in (low, exact):
        x = values.to(next(layer.parameters()).dtype).detach().requires_grad_()
        y = layer(x)[0]
        y.backward(weights.to(y.dtype))
        given[layer] = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
    return {
        "kind": kind,
        "sizes": sizes,
        "parameters": {n: pack(p.double()) for n, p in low.named_parameters()},
        "x": pack(values.double()),
        "weights": pack(weights.double()),
        "errors": [error(a, b) for a, b in zip(given[low], given[exact])],
    }


halves = [half_case(kind, [6, 18], 12, 5) for kind in ("LSTM", "GRU")]

out = Path(__file__).with_name("recurrent.json")
out.write_text(json.dumps({"torch": torch.__version__, "cases": cases, "halves": halves}) + "\n")
print(out, out.stat().st_size)
