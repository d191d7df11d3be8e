"""Times one SCA training step, and its memory, against the same step on the literal algorithm unrolled.

The step: two sparse layers (1 -> 16 -> 28, 5x5) with batch normalization, three dense layers of 500, cross-entropy of
64 images, backpropagation also into the second layer's atoms, Adam, and the local update. The literal algorithm (tau
100) runs 25 and 50 steps a layer; time and memory for 500 are scaled from these, and the scaling of the time is
checked. Every case runs in a process of its own. Memory is what the process needs at most beyond what it
needed before, as the kernel counts it (Linux only).

    python benchmarks/training.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from problems import clothes
from rich.console import Console
from rich.table import Table
from torch import nn

from sparseguard.sparse import Lca, SparseCode2d

BATCH, FULL, SHORT, LONG = 64, 500, 25, 50
NONLINEAR = 0.35
OURS = (20, 8)
"""The defense's own numbers of steps."""


class Model(nn.Module):
    """SCA on the `linear` backbone."""

    def __init__(self, steps: tuple[int, int], *, literal: bool) -> None:
        super().__init__()
        method = Lca(tau=100) if literal else None
        self.first = SparseCode2d(1, 16, steps=steps[0], method=method)
        self.second = SparseCode2d(16, 28, steps=steps[1], method=method, hebbian=True, backprop=True)
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(28)])
        dense = [layer for width in (28 * 28 * 28, 500, 500) for layer in (nn.Linear(width, 500), nn.ReLU())]
        self.rest = nn.Sequential(nn.Flatten(), *dense, nn.Linear(500, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        code = self.norms[0](self.first(images))
        logits: torch.Tensor = self.rest(self.norms[1](self.second(code)))
        return logits


def measure(steps: tuple[int, int], *, literal: bool, repeats: int) -> dict[str, float]:
    """Return seconds of a step, and bytes at most beyond those before the first."""
    torch.manual_seed(0)
    model = Model(steps, literal=literal)
    images, labels = clothes(BATCH), torch.arange(BATCH) % 10
    optimizer = torch.optim.Adam(model.parameters())

    def step(count: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images[:count]), labels[:count]).backward()
        optimizer.step()
        model.second.apply_update()

    model.first.steps, model.second.steps = 2, 2
    step(2)  # libraries set themselves up, and the optimizer its state
    model.first.steps, model.second.steps = steps
    optimizer.zero_grad(set_to_none=True)
    before = _forget_peak()
    step(BATCH)
    memory = _status("VmHWM") - before
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step(BATCH)
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times), "bytes": memory}


def main() -> int:
    """Measure, print, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return 0
    console, repeats = Console(), 1 if arguments.quick else 3
    with console.status("measuring"):
        ours = _apart(steps=OURS, literal=False, repeats=5 * repeats)
        short, long = (_apart(steps=(n, n), literal=True, repeats=repeats) for n in (SHORT, LONG))
    if abs(long["seconds"] / (2 * short["seconds"]) - 1) > NONLINEAR:
        raise SystemExit(f"time is not linear in steps: {short} {long}. Is something else running?")
    literal = {name: long[name] + (long[name] - short[name]) * (FULL - LONG) / (LONG - SHORT) for name in long}
    result = {
        "ours": ours,
        "literal_25": short,
        "literal_50": long,
        "literal_500_scaled": literal,
        "time_ratio": literal["seconds"] / ours["seconds"],
        "memory_ratio": literal["bytes"] / ours["bytes"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    result["targets_met"] = result["time_ratio"] >= 100 and result["memory_ratio"] >= 20
    table = Table("", "seconds", "MB", title=f"one SCA training step, batch {BATCH}")
    for name in ("ours", "literal_25", "literal_50", "literal_500_scaled"):
        table.add_row(name, f"{result[name]['seconds']:.2f}", f"{result[name]['bytes'] / 1e6:.0f}")
    table.add_row("ratio", f"{result['time_ratio']:.0f}x", f"{result['memory_ratio']:.0f}x")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["targets_met"] else 1


def _apart(**case: Any) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _forget_peak() -> float:
    """Have the kernel count the peak anew, and return what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    raise SystemExit(main())
