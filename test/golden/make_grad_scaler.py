"""Runs of torch.amp.GradScaler on the CPU: python make_grad_scaler.py > grad_scaler.json

Each step's loss is sum(w x) factor, so its gradient is x factor; an infinite factor overflows.
"""

import json

import torch

INF, NAN = float("inf"), float("nan")
FACTORS = [1, 0.5, 1, INF, 1, NAN, -INF, 1, 2, 1, 1, 1, 0.25, 1, 1]


def run(name, scaler_options, clips):
    torch.manual_seed(0)
    w = torch.randn(5, requires_grad=True)
    unused = torch.zeros(2, requires_grad=True)
    inputs = torch.randn(len(FACTORS), 5)
    optimizer = {
        "SGD": lambda: torch.optim.SGD([w, unused], lr=0.1, momentum=0.9),
        "AdamW": lambda: torch.optim.AdamW([w, unused], lr=0.1),
    }[name]()
    scaler = torch.amp.GradScaler("cpu", **scaler_options)
    start, steps = w.tolist(), []
    for x, factor in zip(inputs, FACTORS):
        optimizer.zero_grad()
        loss = ((w * x).sum() * abs(factor)) * (-1 if factor < 0 else 1)
        scaled = scaler.scale(loss)
        scaled.backward()
        if clips:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([w], 0.5)
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        steps.append(
            {
                "w": w.tolist(),
                "scale": state["scale"],
                "tracker": state["_growth_tracker"],
            }
        )
    return {
        "optimizer": name,
        "clips": clips,
        "options": scaler_options,
        "start": start,
        "inputs": inputs.tolist(),
        "steps": steps,
    }


frequent = {"init_scale": 4.0, "growth_interval": 2}
odd = {
    "init_scale": 3.3,
    "growth_factor": 1.7,
    "backoff_factor": 0.3,
    "growth_interval": 3,
}
largest = {"init_scale": 2.0**127, "growth_interval": 1}
runs = [
    run("SGD", {}, False),
    run("SGD", frequent, False),
    run("SGD", frequent, True),
    run("AdamW", odd, False),
    run("SGD", largest, False),
]
print(json.dumps({"factors": [str(f) for f in FACTORS], "runs": runs}, indent=1))
