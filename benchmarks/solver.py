"""Times the default solver against the locally competitive algorithm, side by side.

Both get the same dictionary and images. The literal algorithm (tau 100) runs 25 and 50 steps; its time for 500 is
scaled from these, and the scaling is checked. The energy that it reaches in 500 steps comes from one full run, which is
kept in a file. The default solver is timed to that energy, and to within 1e-2, 1e-3 and 1e-4 of the optimum.

    python benchmarks/solver.py [--quick] [--json FILE] [--lcapt CHECKOUT] [--problems ABCDEF]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from problems import SHAPES, problem
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from sparseguard.sparse import Fista, Lca, Problem, lipschitz_bound, solve

GAPS = (1e-2, 1e-3, 1e-4)
FULL, SHORT, LONG = 500, 25, 50
NONLINEAR = 0.35
"""Largest accepted deviation of the time of 50 steps from twice that of 25."""

LIMIT = 2000
"""Steps after which the optimum counts as reached."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured on one problem; times in seconds."""

    problem: str
    padding: str
    lca: float
    lcapt: float | None
    steps: int
    ours: float
    ratio: float
    lcapt_ratio: float | None
    lca_gap: float
    steps_to_gap: tuple[int, ...]
    seconds_to_gap: tuple[float, ...]
    multiply_adds_per_second: float
    outside_convolutions: float


def main() -> int:
    """Measure, print, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--lcapt", type=Path, help="checkout of the public library lca-pytorch, to be timed as well")
    parser.add_argument("--problems", default="ABCDEF", help="which of the problems")
    parser.add_argument("--cache", type=Path, default=Path(__file__).parent / ".energies.json")
    arguments = parser.parse_args()
    if arguments.lcapt is not None:
        sys.path.insert(0, str(arguments.lcapt))
    console, rows = Console(width=150), list[Row]()
    with console.status("measuring") as status:
        rate = _matrix_product_rate()
        for name in arguments.problems:
            for padding in ("same", "valid"):
                status.update(f"measuring {name} {padding}")
                rows.append(_measure(name, padding, arguments, 3 if arguments.quick else 9))
    console.print(_table(rows))
    summary = _summary(rows, rate)
    console.print_json(data=summary)
    if arguments.json:
        arguments.json.write_text(json.dumps({**summary, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0 if summary["targets_met"] else 1


@torch.inference_mode()
def _measure(name: str, padding: Any, arguments: argparse.Namespace, repeats: int) -> Row:
    task = problem(name, padding)
    bound = lipschitz_bound(task.dictionary)
    goal, optimum = _energies(task, arguments.cache)
    lca = _scaled(lambda steps: _literal(task, steps), name, 1 if arguments.quick else 3)
    lcapt = None if arguments.lcapt is None else _scaled(_library(task), name, 1)
    steps = _steps_to(task, goal, bound)
    ours = _median(lambda: solve(task, steps=steps, lipschitz=bound), repeats)
    one = _median(lambda: solve(task, steps=1, lipschitz=bound), repeats)
    to_gap = [_steps_to(task, optimum * (1 + gap), bound) for gap in GAPS]
    shape, code = SHAPES[name], task.dictionary.code_shape
    work = 2 * shape.batch * math.prod(code) * shape.channels * shape.kernel**2
    return Row(
        problem=name,
        padding=padding,
        lca=lca,
        lcapt=lcapt,
        steps=steps,
        ours=ours,
        ratio=lca / ours,
        lcapt_ratio=None if lcapt is None else lcapt / ours,
        lca_gap=goal / optimum - 1,
        steps_to_gap=tuple(to_gap),
        seconds_to_gap=tuple(
            _median(lambda count=count: solve(task, steps=count, lipschitz=bound), repeats // 3)  # type: ignore[misc]
            for count in to_gap
        ),
        multiply_adds_per_second=work * (steps - 1) / max(ours - one, 1e-9),
        outside_convolutions=_outside(lambda: solve(task, steps=steps, lipschitz=bound)),
    )


def _literal(task: Problem, steps: int) -> torch.Tensor:
    iteration = Lca(tau=100).bind(task, torch.ones(()))
    state = iteration.init()
    for _ in range(steps - 1):
        state = iteration.step(state)
    return iteration.code(state)


def _library(task: Problem) -> Callable[[int], Any]:
    """Return a function that runs the public library's layer for some steps."""
    from lcapt.lca import LCAConv2D

    features, channels, kernel, _ = task.dictionary.atoms.shape
    folder = tempfile.mkdtemp(prefix="lcapt-")

    def run(steps: int) -> Any:
        layer = LCAConv2D(
            features,
            channels,
            folder,
            kernel_size=kernel,
            stride=task.dictionary.stride,  # type: ignore[attr-defined]
            lambda_=task.lambd,
            tau=100,
            lca_iters=steps,
            pad=task.dictionary.padding,  # type: ignore[attr-defined]
            input_zero_mean=False,
            input_unit_var=False,
        )
        layer.assign_weight_values(task.dictionary.atoms)
        return layer(task.images)

    return run


def _energies(task: Problem, cache: Path) -> tuple[float, float]:
    """Return the energy that the literal algorithm reaches in 500 steps, and the optimum's."""
    digest = hashlib.sha256(repr((task.dictionary.code_shape, task.lambd, FULL, LIMIT)).encode())
    for tensor in (task.images, task.dictionary.atoms):
        digest.update(tensor.contiguous().numpy().tobytes())
    known = json.loads(cache.read_text()) if cache.exists() else {}
    key = digest.hexdigest()
    if key not in known:
        best = solve(task, steps=LIMIT).energy.double().sum()
        known[key] = [float(_energy(task, _literal(task, FULL))), float(best)]
        cache.write_text(json.dumps(known, indent=1) + "\n")
    goal, optimum = known[key]
    return goal, optimum


def _energy(task: Problem, code: torch.Tensor) -> float:
    return float(task.energy(code).double().sum())


def _steps_to(task: Problem, goal: float, bound: torch.Tensor) -> int:
    method = Fista()
    layout = method.arrange(task)
    iteration = method.bind(layout.problem, bound)
    state = iteration.init()
    for steps in range(1, LIMIT + 1):
        if _energy(task, layout.code_out(iteration.code(state))) <= goal:
            return steps
        state = iteration.step(state)
    raise RuntimeError(f"the energy {goal} was not reached in {LIMIT} steps")


def _scaled(run: Callable[[int], Any], name: str, repeats: int) -> float:
    """Return the time of 500 steps, scaled from 50, after checking against 25 that time grows with steps."""
    for _ in range(3):
        short, long = (_median(lambda count=count: run(count), repeats) for count in (SHORT, LONG))  # type: ignore[misc]
        if abs(long / (2 * short) - 1) <= NONLINEAR:
            return long * FULL / LONG
    raise RuntimeError(f"{name}: 25 steps took {short:.3f} s and 50 took {long:.3f} s; is something else running?")


def _median(run: Callable[[], Any], repeats: int) -> float:
    if repeats > 1:
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _outside(run: Callable[[], Any]) -> float:
    """Return the share of the processor's time that is not spent in convolutions."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    inside = sum(event.self_cpu_time_total for event in events if "conv" in event.key)
    return 1 - inside / total


def _matrix_product_rate() -> float:
    left = torch.randn(1024, 1024)
    return float(1024**3 / _median(lambda: left @ left, 9))


def _summary(rows: list[Row], rate: float) -> dict[str, Any]:
    ratios = [row.ratio for row in rows]
    library = [row.lcapt_ratio for row in rows if row.lcapt_ratio is not None]
    return {
        "targets_met": min(ratios + library) >= 50 and _mean(ratios) >= 120 and (not library or _mean(library) >= 120),
        "smallest_ratio": min(ratios),
        "geometric_mean_ratio": _mean(ratios),
        "smallest_ratio_lcapt": min(library, default=None),
        "geometric_mean_ratio_lcapt": _mean(library) if library else None,
        "matrix_product_multiply_adds_per_second": rate,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _mean(values: list[float]) -> float:
    return statistics.geometric_mean(values)


def _table(rows: list[Row]) -> Table:
    table = Table(title="time to the energy of 500 literal steps (tau 100)")
    for head in ("", "LCA 500", "lcapt 500", "its gap", "steps", "ours", "ratio", "lcapt"):
        table.add_column(head, justify="right")
    for gap in GAPS:
        table.add_column(f"to {gap:.0e}", justify="right")
    table.add_column("G MAC/s", justify="right")
    table.add_column("not conv", justify="right")
    for row in rows:
        table.add_row(
            f"{row.problem} {row.padding}",
            f"{row.lca:.2f} s",
            "" if row.lcapt is None else f"{row.lcapt:.2f} s",
            f"{row.lca_gap:.1e}",
            str(row.steps),
            f"{row.ours * 1e3:.1f} ms",
            f"{row.ratio:.0f}x",
            "" if row.lcapt_ratio is None else f"{row.lcapt_ratio:.0f}x",
            *(
                f"{steps}, {seconds * 1e3:.0f} ms"
                for steps, seconds in zip(row.steps_to_gap, row.seconds_to_gap, strict=True)
            ),
            f"{row.multiply_adds_per_second / 1e9:.0f}",
            f"{row.outside_convolutions:.0%}",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
