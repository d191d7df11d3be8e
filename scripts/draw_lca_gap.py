"""Draw docs/lca-same-gap.png: how far the locally competitive algorithm ends from the optimum, and where.

    python scripts/draw_lca_gap.py --out docs/lca-same-gap.png

It takes some minutes on one core. The numbers it prints are those of docs/sparse-coding.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from sparseguard.data import DATASETS
from sparseguard.sparse import (
    ConvDictionary,
    Fista,
    Lca,
    Method,
    Problem,
    Solution,
    Status,
    random_atoms,
    solve,
    standardize,
)
from sparseguard.sparse._dictionary import Padding

IMAGES, FEATURES, KERNEL, LAMBDA, TAU = 8, 16, 5, 0.5, 100.0
STEPS = {"Lca": 3000, "Fista": 300}
REPORTED = (30, 100, 300, 500, 1000, 3000)
FLOOR = 1e-9
REACH = KERNEL - 1
COLOURS = {"same": "#c4481c", "valid": "#1f6f9f"}


def problem(padding: Padding) -> Problem:
    """Return Eq. 1 for real images in random atoms."""
    images = DATASETS["fashion-mini"]().load().auxiliary_val.images[:IMAGES].double()
    atoms = random_atoms(FEATURES, 1, (KERNEL, KERNEL), torch.Generator().manual_seed(0)).double()
    return Problem(standardize(images), ConvDictionary(atoms, 1, padding, (28, 28)), LAMBDA)


def optimum(task: Problem) -> Solution:
    """Return the minimum, to a KKT residual of 1e-9."""
    found = solve(task, steps=20_000, tolerance=1e-9)
    if not bool((found.status == Status.SOLVED).all()):
        raise ArithmeticError(f"not solved: KKT residual {float(found.kkt.max()):.1e}")
    return found


def gaps(task: Problem, method: Method, best: Solution) -> tuple[Tensor, Solution]:
    """Return each step's energy above the optimum, ``(steps, images)``, in units of the optimum."""
    found = solve(task, method, steps=STEPS[type(method).__name__], trace=True)
    assert found.trace is not None
    return found.trace.energy / best.energy - 1, found


def main() -> None:
    """Solve, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out

    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, (curves, place) = plt.subplots(1, 2, figsize=(8.4, 3.3), width_ratios=[1.75, 1], layout="constrained")
    for padding in ("same", "valid"):
        task = problem(padding)
        best = optimum(task)
        for method, style in ((Lca(tau=TAU), "-"), (Fista(), "--")):
            name = type(method).__name__
            gap, found = gaps(task, method, best)
            numbers = [f"{step}: {float(gap[step - 1].mean()):.1e}" for step in REPORTED if step <= len(gap)]
            ends = f"from {float(gap[-1].min()):.1e} to {float(gap[-1].max()):.1e} at the end"
            print(f"{name}, {padding}: mean above the optimum after {', '.join(numbers)}; {ends}", flush=True)
            curves.loglog(
                range(1, len(gap) + 1),
                gap.mean(1).clamp_min(FLOOR),
                style,
                color=COLOURS[padding],
                label=f"{name}, {padding}",
            )
            if (name, padding) == ("Lca", "same"):
                difference = (found.code - best.code).abs().sum(1).mean(0)
                inner = float(difference[REACH:-REACH, REACH:-REACH].sum() / difference.sum())
                area = (1 - 2 * REACH / len(difference)) ** 2
                print(f"{1 - inner:.0%} of it in the {1 - area:.0%} of positions within {REACH} pixels of the border")
                shown = place.imshow(difference, cmap="magma_r")
    curves.set(xlabel="solver steps", ylabel="energy above the optimum, relative", ylim=(FLOOR, 10))
    curves.legend(frameon=False, loc="lower left")
    curves.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    place.set(title="same padding: where the codes differ", xticks=[], yticks=[])
    place.spines[:].set_visible(False)
    place.title.set_fontsize(9)
    figure.colorbar(shown, ax=place, shrink=0.85)
    figure.savefig(out, dpi=110, pil_kwargs={"optimize": True})
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
