"""What the scripts that write golden values share: seeded inputs of three decimals in float64, and
tensors and cases as the tests read them."""

import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def normal(*shape):
    return torch.round(torch.randn(shape), decimals=3)


def pack(t):
    # 12 digits are what the comparison needs.
    flat = t.detach().flatten().tolist()
    if t.is_floating_point():
        return {"shape": list(t.shape), "data": [float(f"{v:.12g}") for v in flat]}
    return {"shape": list(t.shape), "dtype": "int64", "data": [int(v) for v in flat]}


def case(f, inputs, options=None, differentiable=None):
    """f(**inputs) gives a tensor; gradients of all float inputs unless named."""
    names = differentiable or [n for n, t in inputs.items() if t is not None and t.is_floating_point()]
    for name in names:
        inputs[name].requires_grad_()
    y = f(**inputs)
    weights = normal(*y.shape)
    (y * weights).sum().backward()
    return {
        "options": options or {},
        "inputs": {n: None if t is None else pack(t) for n, t in inputs.items()},
        "weights": pack(weights),
        "y": pack(y),
        "grads": {n: pack(inputs[n].grad) for n in names},
    }


def op_case(op, f, inputs, options=None, differentiable=None):
    return {"op": op} | case(f, inputs, options, differentiable)
