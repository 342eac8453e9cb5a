"""The single ops of bench/gpu in PyTorch, on the same numbers: makers[op](arguments) gives a function
that runs one and returns what is compared."""

import torch
from torch.nn import functional as F


# Whether inputs go on in float64, for the results that both sides are compared with.
exact = False


def hashed(shape, seed, dtype):
    n = 1
    for size in shape:
        n *= size
    i = torch.arange(n, dtype=torch.int64, device="cuda")
    h = ((i + seed) * 1103515245 + 12345).remainder(2147483648)
    x = (h.double() / 2147483648 - 0.5).to(dtype).reshape(shape)
    return x.double() if exact else x


def classes(n, count):
    return (torch.arange(n, dtype=torch.int64, device="cuda") * 7919).remainder(count)


def with_gradients(c, leaves, forward):
    if not c.get("backward"):

        def run():
            with torch.inference_mode():
                return [forward()]

        return run
    for leaf in leaves:
        leaf.requires_grad_()
    state = {}

    def run_both():
        for leaf in leaves:
            leaf.grad = None
        y = forward()
        if "g" not in state:
            state["g"] = hashed(list(y.shape), 99, y.dtype)
        y.backward(state["g"])
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    return run_both


def unary(op):
    def make(c, dtype):
        x = hashed(c["sizes"], 1, dtype) * 4
        return with_gradients(c, [x], lambda: op(x))

    return make


def add(c, dtype):
    x, y = hashed(c["sizes"], 1, dtype), hashed(c["sizes"], 2, dtype)
    return with_gradients(c, [x, y], lambda: x + y)


def layer_norm(c, dtype):
    width = c["sizes"][-1]
    x = hashed(c["sizes"], 1, dtype)
    weight, bias = hashed([width], 2, dtype), hashed([width], 3, dtype)
    return with_gradients(c, [x, weight, bias], lambda: F.layer_norm(x, [width], weight, bias))


def batch_norm(c, dtype):
    x = hashed(c["sizes"], 1, dtype)
    weight, bias = (hashed([c["sizes"][1]], seed, torch.float32) for seed in (2, 3))
    return with_gradients(
        c, [x, weight, bias], lambda: F.batch_norm(x, None, None, weight, bias, training=True)
    )


def cross_entropy(c, dtype):
    logits = hashed(c["sizes"], 1, dtype) * 8
    target = classes(*c["sizes"])
    return with_gradients(c, [logits], lambda: F.cross_entropy(logits, target))


def embedding(c, dtype):
    vocabulary, width, tokens = c["sizes"]
    weight = hashed([vocabulary, width], 1, dtype)
    index = classes(tokens, vocabulary)
    return with_gradients(c, [weight], lambda: F.embedding(index, weight))


def product(c, dtype):
    batch, m, n, k = c["sizes"]
    lead = [batch] if batch > 1 else []
    a, b = hashed([*lead, m, k], 1, dtype), hashed([*lead, k, n], 2, dtype)
    return with_gradients(c, [a, b], lambda: a @ b)


def convolution(c, dtype):
    n, channels, size, filters, window, stride = c["sizes"]
    x = hashed([n, channels, size, size], 1, dtype)
    w = hashed([filters, channels, window, window], 2, dtype)
    return with_gradients(
        c, [x, w], lambda: F.conv2d(x, w, stride=stride, padding=window // 2)
    )


def attention(c, dtype):
    q, k, v = (hashed(c["sizes"], seed, dtype) * 2 for seed in (1, 2, 3))
    return with_gradients(
        c, [q, k, v], lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    )


def adamw(c, dtype):
    count, size = c["sizes"]
    parameters = [hashed([size], i, dtype).requires_grad_() for i in range(count)]
    for p in parameters:
        p.grad = hashed([size], 1000, dtype)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def run():
        optimizer.step()
        return [parameters[0].detach(), parameters[-1].detach()]

    return run


MAKERS = {
    "copy": unary(torch.clone),
    "add": add,
    "gelu": unary(F.gelu),
    "tanh": unary(torch.tanh),
    "sum": unary(lambda x: x.sum(-1)),
    "softmax": unary(lambda x: F.softmax(x, -1)),
    "layer norm": layer_norm,
    "batch norm": batch_norm,
    "cross-entropy": cross_entropy,
    "embedding": embedding,
    "product": product,
    "convolution": convolution,
    "attention": attention,
    "adamw": adamw,
}


class GpuOp:
    """One case of bench/gpu/cases.mts."""

    def __init__(self, **arguments):
        torch.backends.cuda.matmul.allow_tf32 = bool(arguments.get("tf32"))
        torch.backends.cudnn.allow_tf32 = bool(arguments.get("tf32"))
        self.arguments = arguments
        self.run = self.make()

    def make(self):
        return MAKERS[self.arguments["op"]](self.arguments, getattr(torch, self.arguments["dtype"]))

    def digests(self):
        """Of each result: sum |y|, and a few elements spread over it; here, and in float64."""
        global exact
        here = [digest(y) for y in self.run()]
        exact = True
        try:
            reference = [digest(y) for y in self.make()()]
        finally:
            exact = False
        torch.cuda.empty_cache()
        return {"here": here, "exact": reference}


def digest(y):
    flat = y.flatten()
    n = flat.numel()
    places = [i * (n - 1) // 15 for i in range(16)] if n > 1 else [0]
    return {
        "sum": flat.double().abs().sum().item(),
        "values": flat[torch.tensor(places, device=flat.device)].double().tolist(),
    }
