"""PyTorch's side of `npm run bench:peers`: answers requests, one JSON object a line, in turn.

A request names what to do; the answer is {"value": …} or {"error": "…"}. Between requests nothing
computes here. What is timed is opened once under a number, and run by it.
"""

import json
import os
import sys
import time
from contextlib import nullcontext

# Libraries print to standard output; the answers have it to themselves.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from torch_files import load_tensors  # noqa: E402
from torch_networks import NETWORKS  # noqa: E402

DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"


class TrainingStep:
    """AdamW on cross-entropy. `variant` has fused, foreach, clips, channels_last and compile; `precision` is
    float32, bfloat16 (autocast) or float64, the reference of both."""

    def __init__(self, network, state, batch, variant, precision):
        self.model = NETWORKS[network]()
        self.model.load_state_dict(load_tensors(state))
        self.model.to(DEVICE)
        tensors = load_tensors(batch)
        self.x, self.y = tensors["x"].to(DEVICE), tensors["y"].to(DEVICE)
        if DEVICE == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = bool(variant.get("tf32"))
            torch.backends.cudnn.allow_tf32 = bool(variant.get("tf32"))
        if precision == "float64":
            self.model = self.model.double()
            self.x = self.x.double() if self.x.is_floating_point() else self.x
        if variant.get("channels_last"):
            self.model = self.model.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.clips = variant.get("clips")
        form = {name: True for name in ("fused", "foreach") if variant.get(name)}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, **form)
        self.autocast = precision == "bfloat16"
        self.criterion = torch.compile(self.loss) if variant.get("compile") else self.loss

    def loss(self, x, y):
        with torch.autocast(DEVICE, torch.bfloat16) if self.autocast else nullcontext():
            return F.cross_entropy(self.model(x), y)

    def parameters(self):
        return sum(p.numel() for p in self.model.parameters())

    def dropout(self, active):
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train(active)

    def run(self):
        self.optimizer.zero_grad()
        loss = self.criterion(self.x, self.y)
        loss.backward()
        if self.clips:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.optimizer.step()
        return loss


class Forward:
    """Inference: eval mode, no gradients."""

    def __init__(self, network, state, batch):
        self.model = NETWORKS[network]().eval()
        self.model.load_state_dict(load_tensors(state))
        self.x = load_tensors(batch)["x"]

    def run(self):
        with torch.inference_mode():
            return self.model(self.x)


class Add:
    """`repeat` sums of two tensors of 4 elements."""

    def __init__(self, gradient, repeat):
        self.a = torch.tensor([1.0, 2, 3, 4], device=DEVICE, requires_grad=gradient)
        self.b = torch.tensor([5.0, 6, 7, 8], device=DEVICE)
        self.repeat = repeat

    def run(self):
        a, b = self.a, self.b
        for _ in range(self.repeat):
            c = a + b
        return c


class Chain:
    """20 small ops, a sum, and their gradients."""

    def __init__(self, size):
        i = torch.arange(size, dtype=torch.float32)
        self.w = (i.remainder(7) / 7 - 0.5).requires_grad_()
        self.a = i.remainder(5) / 5 - 0.4
        self.b = i.remainder(3) / 3 + 0.5

    def run(self):
        self.w.grad = None
        y = self.w
        for _ in range(5):
            y = (y * self.b + 1).tanh() - self.a
        y.sum().backward()
        return self.w.grad


class Product:
    """a b; `layout` says which of them lies transposed in memory (NN, NT, TN)."""

    def __init__(self, file, layout):
        tensors = load_tensors(file)
        self.a = tensors["a"].t() if layout[0] == "T" else tensors["a"]
        self.b = tensors["b"].t() if layout[1] == "T" else tensors["b"]
        self.result = tensors["y"]

    def run(self):
        with torch.inference_mode():
            return torch.mm(self.a, self.b)

    def errors(self):
        """The greatest error of both sides against float64, in units of the sum of |a| |b|."""
        a, b = self.a.double(), self.b.double()
        exact, scale = a @ b, (a.abs() @ b.abs()).clamp_min(1e-300)
        return [((y.double() - exact).abs() / scale).max().item() for y in (self.result, self.run())]


class Elementwise:
    def __init__(self, op, size):
        x = torch.linspace(-4, 4, size)
        y = torch.linspace(1, 2, size)
        self.op = {
            "add": lambda: x + y,
            "mul": lambda: x * y,
            "relu": lambda: torch.relu(x),
            "exp": lambda: torch.exp(x),
            "tanh": lambda: torch.tanh(x),
            "gelu": lambda: F.gelu(x),
        }[op]

    def run(self):
        with torch.inference_mode():
            return self.op()


KINDS = {
    "step": TrainingStep,
    "forward": Forward,
    "add": Add,
    "chain": Chain,
    "product": Product,
    "elementwise": Elementwise,
}

if DEVICE == "cuda":
    from torch_gpu import GpuOp

    KINDS["gpu op"] = GpuOp

opened = {}


def resident(field):
    """Kilobytes of this process, now (VmRSS) or at most so far (VmHWM). Not getrusage's figure,
    which begins with that of the process that started this one."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return None


def hello(_):
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def open_workload(request):
    torch.manual_seed(0)
    opened[request["id"]] = KINDS[request["kind"]](**request["arguments"])


def close(request):
    del opened[request["id"]]
    if not opened:
        torch.compiler.reset()


def losses(request):
    """Of the first steps, without dropout, whose masks no other library draws alike."""
    step = opened[request["id"]]
    step.dropout(False)
    values = [step.run().item() for _ in range(request["steps"])]
    step.dropout(True)
    return values


class Operators(TorchDispatchMode):
    """Counts what is dispatched below autograd, views included."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def operators(request):
    """Of one run after one that is not counted."""
    run = opened[request["id"]].run
    run()
    with Operators() as operators:
        run()
    return operators.count


def timed(request):
    """Seconds of `count` runs after one that is not counted; on a GPU, from an idle device until it
    is idle again. With the clock "cpu", of all threads of the process."""
    clock = time.process_time if request.get("clock") == "cpu" else time.perf_counter
    run = opened[request["id"]].run
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    run()
    wait()
    start = clock()
    for _ in range(request["count"]):
        run()
    wait()
    return clock() - start


ACTIONS = {
    "hello": hello,
    "open": open_workload,
    "close": close,
    "losses": losses,
    "operators": operators,
    "timed": timed,
    "parameters": lambda request: opened[request["id"]].parameters(),
    "values": lambda request: opened[request["id"]].run().flatten().tolist(),
    "sum": lambda request: opened[request["id"]].run().double().sum().item(),
    "errors": lambda request: opened[request["id"]].errors(),
    "digests": lambda request: opened[request["id"]].digests(),
    "resident": lambda request: {"now": resident("VmRSS"), "peak": resident("VmHWM")},
}


def main():
    torch.set_num_threads(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": ACTIONS[request["do"]](request)}
        except Exception as error:  # whatever a library throws is this row's result
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print(json.dumps(answer), file=answers)


main()
