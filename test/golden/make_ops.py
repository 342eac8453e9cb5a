"""Writes ops.json and promotion.json: what PyTorch answers where its meaning is easy to get wrong.

    python3 -m venv VENV && VENV/bin/pip install torch numpy && VENV/bin/python make_ops.py

A case is the name of one of adjoint's functions, its arguments, and PyTorch's results (and, where
asked for, the gradients of the results' sum with respect to the float arguments).
"""

import json
import math
import pathlib

import torch

here = pathlib.Path(__file__).parent
inf, nan = math.inf, math.nan
f32, f64, f16, bf16 = torch.float32, torch.float64, torch.float16, torch.bfloat16
i64, i32, i16, i8, u8 = torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8
names = {f32: "float32", f64: "float64", bf16: "bfloat16", f16: "float16", i64: "int64",
         i32: "int32", i16: "int16", i8: "int8", u8: "uint8", torch.bool: "bool"}


def number(v):
    """JSON has no NaN, no infinities and, when read by JavaScript, no int64."""
    if isinstance(v, bool):
        return int(v)
    if isinstance(v, int):
        return v if abs(v) < 2**53 else str(v)
    if math.isnan(v):
        return "nan"
    if math.isinf(v):
        return "inf" if v > 0 else "-inf"
    return "-0" if v == 0 and math.copysign(1, v) < 0 else v


def encode(x):
    if isinstance(x, torch.Tensor):
        return {"dtype": names[x.dtype], "shape": list(x.shape),
                "values": [number(v) for v in x.detach().reshape(-1).tolist()]}
    if isinstance(x, (list, tuple)):
        return [encode(v) for v in x]
    if isinstance(x, torch.dtype):
        return names[x]
    return number(x) if isinstance(x, float) else x


cases = []


def case(name, f, *args, grad=False):
    """`args` are adjoint's arguments, with which `f` computes PyTorch's answer."""
    inputs = [a for a in args if isinstance(a, torch.Tensor)]
    if grad:
        inputs = [a.requires_grad_() for a in inputs if a.is_floating_point()]
    y = f(*args)
    results = list(y) if isinstance(y, tuple) else [y]
    entry = {"f": name, "args": encode(args),
             "results": encode(results)}
    if grad:
        results[0].sum().backward()
        entry["grads"] = encode([a.grad for a in inputs])
    cases.append(entry)


def T(values, dtype=f32):
    return torch.tensor(values, dtype=dtype)


# ---- elementwise arithmetic on every pair of signs and sizes
reals = [-inf, -7.5, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 7.5, inf, nan]
a, b = T([[v] for v in reals]), T([reals])
for name, f in {"div": torch.div, "floorDivide": torch.floor_divide, "remainder": torch.remainder,
                "fmod": torch.fmod, "pow": torch.pow, "atan2": torch.atan2, "hypot": torch.hypot,
                "maximum": torch.maximum, "minimum": torch.minimum, "eq": torch.eq,
                "lt": torch.lt, "ge": torch.ge, "logicalAnd": torch.logical_and,
                "logicalXor": torch.logical_xor}.items():
    case(name, f, a, b)
    case(name, f, a.double(), b.double())

whole = [-9, -7, -2, -1, 1, 2, 7, 100]
for dtype in (i8, i32, i64):
    a, b = T([[v] for v in whole], dtype), T([whole], dtype)
    for name, f in {"div": torch.div, "floorDivide": torch.floor_divide,
                    "remainder": torch.remainder, "fmod": torch.fmod, "mul": torch.mul,
                    "bitwiseAnd": torch.bitwise_and, "bitwiseXor": torch.bitwise_xor}.items():
        case(name, f, a, b)
    case("pow", torch.pow, a, b.abs().clamp(max=9))
    case("shiftLeft", torch.bitwise_left_shift, a, T([range(8)], dtype))
    case("shiftRight", torch.bitwise_right_shift, a, T([range(8)], dtype))
case("pow", torch.pow, T([-3, -1, 0, 1, 2], i32), 3)
case("pow", torch.pow, T([-3, -1, 0, 1, 2], i32), 0.5)
case("pow", torch.pow, T([-3.0, 0.0, 2.0]), 2)
case("pow", torch.pow, 2, T([-1.0, 0.0, 3.0]))
case("add", torch.add, T([250, 5], u8), T([10, 250], u8))
case("mul", torch.mul, T([100, -128], i8), T([3, -1], i8))
case("neg", torch.neg, T([1, 255], u8))
case("abs", torch.abs, T([-128, -1], i8))

# ---- elementwise, one argument
special = T([-inf, -1e30, -2.5, -1.5, -0.5, -0.0, 0.0, 1e-42, 0.5, 1.5, 2.5, 1e30, inf, nan])
for name in ("round floor ceil trunc sign abs sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 "
             "log1p sin cos tan atan sinh cosh tanh asinh acosh erf erfc sigmoid square relu isnan "
             "isinf isfinite").split():
    x = special[(special.abs() < 1e20) | special.isnan() | special.isinf()] if name in (
        "sin", "cos", "tan") else special
    case(name, getattr(torch, name), x)
for name in ("asin", "acos", "atanh"):
    case(name, getattr(torch, name), T([-inf, -1.5, -1.0, -0.0, 0.5, 1.0, 1.5, nan]))
for name, f in {"softplus": torch.nn.functional.softplus, "silu": torch.nn.functional.silu,
                "gelu": torch.nn.functional.gelu}.items():
    case(name, f, T([-200.0, -30.0, -1.0, -0.0, 0.0, 1.0, 19.0, 21.0, 200.0, nan]))
case("gelu", lambda x, o: torch.nn.functional.gelu(x, **o), T([-30.0, -1.0, 0.0, 1.0, 30.0]),
     {"approximate": "tanh"})
for dtype in (i32, torch.bool):
    x = T([0, 1, 1, 0], dtype)
    for name in ("sqrt", "exp", "sigmoid", "reciprocal", "erf"):
        case(name, getattr(torch, name), x)
case("logicalNot", torch.logical_not, T([0.0, -0.0, nan, 2.0]))
case("bitwiseNot", torch.bitwise_not, T([0, 1, -1, 127], i8))
case("bitwiseNot", torch.bitwise_not, T([0, 1], torch.bool))
case("clamp", torch.clamp, T([-2.0, 0.5, 2.0, nan]), -1, 1)
case("clamp", torch.clamp, T([-2.0, 0.5, 2.0]), 1, -1)
case("clamp", torch.clamp, T([-2, 0, 5], i32), 0.5, None)
case("frac", torch.frac, T([-1.25, 0.0, 2.5]))
near = (T([1.0, inf, inf, nan, nan, 1.0]), T([1.0 + 1e-6, inf, -inf, nan, 1.0, 1.1]))
case("isclose", torch.isclose, *near)
case("isclose", lambda p, q, o: torch.isclose(p, q, equal_nan=True), *near, {"equalNan": True})
case("where", torch.where, T([True, False, True], torch.bool), T([1, 2, 3], i32), T([0.5]))
case("where", torch.where, T([True, False], torch.bool), T([1, 2], i64), 0.5)

# ---- casts
def cast(values, source, target):
    case("cast", lambda x, d: x.to(d), T(values, source), target)


for target in (i8, i16, u8, i32, torch.bool):
    cast([-(2**40) - 3, -129, -1, 0, 1, 127, 128, 255, 256, 70000, 2**35 + 7], i64, target)
for target in (i8, i32, i64, torch.bool):
    cast([-3.9, -0.5, -0.0, 0.5, 3.9, 100.0], f32, target)
cast([nan, inf, -0.0], f32, torch.bool)
cast([65519.0, 65520.0, -1e6, 6e-8, 2e-8, 1.0009765625, 1.00048828125, nan, inf], f32, f16)
cast([3.3895e38, 3.4e38, 1.00390625, 1.001953125, 1.005859375, 1e-40, nan, -inf], f32, bf16)
cast([1e300, -1e300, 1e-46, 0.1, nan], f64, f32)
cast([2**53 + 1, 2**62 + 1, 16777217], i64, f32)
cast([2**53 + 1, -(2**63)], i64, f64)
cast([2049, 65519, 65520], i32, f16)

# ---- reductions
x = T([[[1.0, 5.0, 5.0], [nan, 2.0, 9.0]], [[-inf, 3.0, 3.0], [4.0, inf, -1.0]]])
for name, f in {"sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin,
                "prod": torch.prod}.items():
    for axis in (0, 1, -1):
        case(name, lambda t, d, o, f=f: f(t, d, keepdim=True), x, axis, {"keepdim": True})
        case(name, lambda t, d, f=f: f(t, d), x, axis)
    case(name, lambda t, f=f: f(t), x[1])
for name, f in {"max": torch.max, "min": torch.min}.items():
    for axis in (0, 1, 2):
        case(name, lambda t, d, f=f: tuple(f(t, d)), x, axis)
for name, f in {"argmax": torch.argmax, "argmin": torch.argmin}.items():
    for t in (x, T([3, 1, 3, 1], i32), T([2.0, 2.0, 2.0]), T(4.0), T([1.0, nan, nan, 5.0])):
        case(name, f, t)
    for axis in (0, 1, 2):
        case(name, f, x, axis)
case("sum", torch.sum, T([100, 100, 100], i8))
case("sum", torch.sum, T([True, True], torch.bool))
case("sum", lambda t, d, o: torch.sum(t, dtype=f64), T([0.1, 0.2]), None, {"dtype": "float64"})
case("prod", torch.prod, T([100, 100], i8))
case("mean", torch.mean, T([], f32))
case("sum", torch.sum, torch.zeros(0, 3), 0)
case("sum", torch.sum, torch.zeros(0, 3), 1)
case("prod", torch.prod, torch.zeros(0, 3), 0)
case("any", torch.any, T([], f32))
case("all", torch.all, T([], f32))
case("any", torch.any, T([[0.0, nan], [0.0, -0.0]]), 1)
case("all", torch.all, T([[1.0, nan], [2.0, -0.0]]), 1)
v = T([[1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]])
for correction in (0, 1, 2):
    for name, f in {"variance": torch.var, "std": torch.std}.items():
        case(name, lambda t, d, o, f=f: f(t, d, **o), v, 1, {"correction": correction})
        case(name, lambda t, d, o, f=f: f(t, d, **o), v, [0, 1], {"correction": correction})
case("variance", lambda t, d: torch.var(t, d), T([[5.0]]), 1)
case("variance", lambda t, d, o: torch.var(t, d, **o), T([[5.0]]), 1, {"correction": 0})
case("logSumExp", torch.logsumexp, T([[1000.0, 1000.0], [-1000.0, -1001.0]]), 1)
case("logSumExp", torch.logsumexp, T([[-inf, -inf], [inf, 0.0], [-inf, 0.0], [nan, 0.0]]), 1)
case("logSumExp", torch.logsumexp, torch.zeros(2, 0), 1)
for p in (0, 1, 2, 3, 0.5, inf, -inf):
    case("norm", lambda t, p, d: torch.linalg.vector_norm(t, p, d), T([[3.0, -4.0], [0.0, 2.0]]),
         p, 1)

# ---- softmax
s = T([[1000.0, 1000.0, -1000.0], [-inf, 0.0, 0.0], [-inf, -inf, -inf], [inf, 0.0, 1.0],
       [nan, 0.0, 1.0], [1.0, 2.0, 3.0]])
for name, f in {"softmax": torch.softmax, "logSoftmax": torch.log_softmax}.items():
    case(name, f, s, 1)
    case(name, f, s, 0)
    case(name, f, T(3.0), 0)
    case(name, f, torch.zeros(2, 0), 1)
    case(name, f, torch.zeros(0, 2), 1)
    case(name, f, T([[1.0, 2.0]], f16), 1)

# ---- products
g = torch.Generator().manual_seed(0)
for left, right in (([3], [3]), ([3], [3, 2]), ([2, 3], [3]), ([2, 3], [3, 4]), ([5, 2, 3], [3, 4]),
                    ([2, 3], [5, 3, 4]), ([3], [5, 3, 2]), ([5, 2, 3], [3]), ([5, 2, 3], [5, 3, 2]),
                    ([2, 1, 2, 3], [4, 3, 2]), ([2, 0], [0, 3]), ([0, 2], [2, 3]), ([0], [0]),
                    ([0, 2, 3], [3, 2]), ([1, 1], [1, 1])):
    p = torch.randint(-4, 5, left, generator=g)
    q = torch.randint(-4, 5, right, generator=g)
    case("matmul", torch.matmul, p.float(), q.float(), grad=True)
    case("matmul", torch.matmul, p, q)
case("linear", torch.nn.functional.linear, torch.randint(-4, 5, (2, 2, 3), generator=g).float(),
     torch.randint(-4, 5, (4, 3), generator=g).float(), T([1.0, 2.0, 3.0, 4.0]), grad=True)

# ---- indexing and joining
m = torch.arange(12.0).reshape(3, 4)
case("gather", torch.gather, m, 1, T([[0, 0], [3, 1], [2, 2]], i64), grad=True)
case("gather", torch.gather, m.detach(), 0, T([[2, 0]], i64))
case("scatterAdd", torch.scatter_add, torch.zeros(3, 4), 1, T([[0, 0], [3, 1], [2, 2]], i64),
     T([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), grad=True)
case("indexSelect", torch.index_select, m.detach(), 1, T([3, 0, 3], i64), grad=True)
case("cat", lambda parts, axis: torch.cat(parts, axis), [T([1, 2], i32), T([0.5]), T([True], torch.bool)],
     0)
case("stack", lambda parts, axis: torch.stack(parts, axis), [T([1.0, 2.0]), T([3.0, 4.0])], -1)

# ---- creation
case("arange", torch.arange, 5)
case("arange", torch.arange, 1, 2, 0.1)
case("arange", torch.arange, 5, 0, -2)
case("arange", torch.arange, 3, 3)
for n in (0, 1, 2, 5, 9):
    case("linspace", torch.linspace, -1, 1, n)
case("eye", torch.eye, 2, 3)
case("eye", torch.eye, 3, 0)

# ---- gradients at kinks, ties and zeros
def slope(name, f, *args):
    case(name, f, *args, grad=True)


ties = [1.0, 3.0, 3.0, 2.0, 3.0]
slope("amax", lambda x, d: torch.amax(x, d), T([ties]), 1)
slope("amin", lambda x, d: torch.amin(x, d), T([[-v for v in ties]]), 1)
slope("max", lambda x: torch.max(x), T(ties))
slope("max", lambda x, d: tuple(torch.max(x, d)), T([ties]), 1)
slope("maximum", torch.maximum, T([1.0, 2.0, 2.0]), T([2.0, 2.0, 1.0]))
slope("minimum", torch.minimum, T([1.0, 2.0, 2.0]), T([2.0, 2.0, 1.0]))
slope("abs", torch.abs, T([-1.0, 0.0, 2.0]))
slope("relu", torch.relu, T([-1.0, 0.0, 2.0]))
slope("sign", torch.sign, T([-1.0, 0.0, 2.0]))
slope("sqrt", torch.sqrt, T([0.0, 4.0]))
slope("clamp", torch.clamp, T([-2.0, -1.0, 0.0, 1.0, 2.0]), -1, 1)
slope("clamp", torch.clamp, T([-2.0, -1.0, 0.0]), -1, None)
slope("clamp", torch.clamp, T([-2.0, -1.0, 1.0, 2.0]), T([-1.0] * 4), T([1.0] * 4))
slope("prod", torch.prod, T([2.0, 3.0, 4.0]))
slope("prod", torch.prod, T([2.0, 0.0, 4.0]))
slope("prod", torch.prod, T([0.0, 0.0, 4.0]))
slope("pow", torch.pow, T([0.0, 0.0, 0.0, 2.0, -2.0]), T([0.0, 1.0, 2.0, 0.0, 2.0]))
slope("pow", torch.pow, T([0.0, 2.0]), 0)
slope("pow", torch.pow, T([0.0, 2.0]), 1)
slope("remainder", torch.remainder, T([-7.5, 7.5, 5.0]), T([2.0, -2.0, 3.0]))
slope("fmod", torch.fmod, T([-7.5, 7.5, 5.0]), T([2.0, -2.0, 3.0]))
slope("std", lambda x, d: torch.std(x, d), T([[3.0, 3.0, 3.0], [1.0, 2.0, 4.0]]), 1)
slope("norm", lambda x, p, d: torch.linalg.vector_norm(x, p, d), T([[0.0, 0.0], [3.0, 4.0]]), 2, 1)
slope("norm", lambda x, p, d: torch.linalg.vector_norm(x, p, d), T([[0.0, 0.0], [3.0, -4.0]]), 1, 1)
slope("norm", lambda x, p, d: torch.linalg.vector_norm(x, p, d), T([[0.0, 0.0], [3.0, -4.0]]), 3, 1)
slope("logSumExp", torch.logsumexp, T([[-inf, 0.0], [1.0, 1.0]]), 1)
slope("where", torch.where, T([True, False], torch.bool), T([1.0, 2.0]), T([3.0, 4.0]))
slope("sigmoid", torch.sigmoid, T([-200.0, 0.0, 200.0]))
slope("softplus", torch.nn.functional.softplus, T([-200.0, 0.0, 200.0]))
slope("silu", torch.nn.functional.silu, T([-200.0, 0.0, 200.0]))
slope("gelu", torch.nn.functional.gelu, T([-200.0, 0.0, 200.0]))

# ---- promotion: the dtype of a sum, by the two dtypes and whether each has axes
kinds = list(names)
promotion = {"dtypes": [names[d] for d in kinds]}
for label, one, two in (("tensors", [1], [1]), ("scalarAtRight", [1], []), ("scalars", [], [])):
    promotion[label] = [[names[torch.result_type(torch.ones(one, dtype=p), torch.ones(two, dtype=q))]
                         for q in kinds] for p in kinds]
for label, value in (("integer", 1), ("fraction", 1.5), ("boolean", True)):
    promotion[label] = [[names[torch.result_type(torch.ones(shape, dtype=p), value)]
                         for shape in ([1], [])] for p in kinds]
promotion["division"] = [names[(torch.ones(1, dtype=p) / 1).dtype] for p in kinds]


def dump(path, value, rows):
    """One case a line, so that changes can be read."""
    text = ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows)
    path.write_text(json.dumps(value)[:-1] + (", " if value else "") + f'"cases": [\n{text}\n]}}\n')


dump(here / "ops.json", {"torch": torch.__version__}, cases)
(here / "promotion.json").write_text(
    "{\n" + ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in promotion.items()) + "\n}\n")
