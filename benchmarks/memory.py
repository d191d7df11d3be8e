"""How much memory of its own the program takes: training on more and more images, and auditing a large tap.

    python benchmarks/memory.py --path medical-mnist.tar.gz            trains on 2,500 to 41,268 prepared images
    python benchmarks/memory.py                                        audits a large tap only

Every row is a process of its own, whose anonymous memory (RssAnon: what no file backs) is read from outside many times
a second; the highest value is printed, beside what the same process held after importing. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
SIZES = (2_500, 10_000, 41_268)


def train(path: str, count: int) -> None:
    """Train the undefended model for an epoch on ``count`` private images of Medical MNIST."""
    import torch

    from sparseguard.core.progress import Silent
    from sparseguard.core.seeding import derive
    from sparseguard.data import MedicalMnist
    from sparseguard.defenses import DEFENSES
    from sparseguard.targets import BACKBONES, Fit, train

    splits = MedicalMnist(path=Path(path), private=count).load()
    plain = BACKBONES["linear"]().blueprint(len(splits.private.classes))
    defense = DEFENSES["none"]()
    model = defense.place(plain, {}).build(splits.private.shape, lambda stage: derive(purpose="initial", stage=stage))
    signal_ready()
    train(
        model, defense, {}, splits.private, Fit(epochs=1), seed=0, device=torch.device("cpu"), progress=Silent(),
        label="benchmark",
    )  # fmt: skip


def audit(queries: int) -> None:
    """Audit a tap of 128 x 16 x 16 numbers an image, 128 times as many as it has pixels."""
    import torch
    from torch import nn

    from sparseguard import ImageSet, audit

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2)
    )

    def images(count: int) -> ImageSet:
        pixels = torch.nn.functional.interpolate(torch.rand(count, 1, 4, 4), 16, mode="bilinear")
        return ImageSet(pixels=pixels, labels=torch.arange(count) % 2, classes=("a", "b"))

    private, held_out = images(queries // 4), images(queries * 5 // 3)
    signal_ready()
    attacks = [{"name": "mean-image"}, {"name": "nearest-neighbor"}, {"name": "ridge", "copies": 1}]
    attacks += [
        {"name": "local-ridge", "copies": 1, "neighbours": [16]},
        {"name": "ridge-conv", "copies": 1, "epochs": 1},
    ]
    with tempfile.TemporaryDirectory() as out:
        audit(model, private, held_out, taps=["1"], attacks=attacks, out=Path(out))


def signal_ready() -> None:
    """Tell the process outside that imports are over, and go on when it has looked."""
    print("ready", flush=True)
    sys.stdin.readline()


def run_row(words: list[str], **environment: str) -> dict[str, float]:
    """Run a row in a process and return its anonymous memory before and at its highest, in MiB, and seconds."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--row", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{words}: the row did not start.")
    before, started = _anonymous(process.pid), time.monotonic()
    highest = before
    process.stdin.write("go\n")
    process.stdin.flush()
    while process.poll() is None:
        highest = max(highest, _anonymous(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{words}: the row ended with {process.returncode}.")
    return {"before_mib": before, "peak_mib": highest, "seconds": time.monotonic() - started}


def _anonymous(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--path", help="Medical MNIST: class folders or an archive of them.")
    parser.add_argument("--queries", type=int, default=600, help="Images the audit's attackers learn from.")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        task, value = arguments.row
        train(*json.loads(value)) if task == "train" else audit(int(value))
        return
    cases: dict[str, tuple[list[str], dict[str, str]]] = {}
    for count in SIZES if arguments.path else ():
        cases[f"train on {count:,} images of 64 x 64"] = (["train", json.dumps([arguments.path, count])], {})
    for queries, limit in ((arguments.queries, "1024"), (arguments.queries, "16"), (3 * arguments.queries, "16")):
        size = queries * 128 * 16 * 16 * 4 / MIB
        name = f"audit, tap of {size:,.0f} MiB for {queries:,} queries, SPARSEGUARD_TAP_MIB={limit}"
        cases[name] = (["audit", str(queries)], {"SPARSEGUARD_TAP_MIB": limit})
    rows = {}
    if not arguments.as_json:
        print(f"{'':80} {'before':>8} {'peak':>8} MiB, anonymous")
    for name, (words, environment) in cases.items():
        row = rows[name] = run_row(words, **environment)
        if not arguments.as_json:
            print(f"{name:80} {row['before_mib']:8,.0f} {row['peak_mib']:8,.0f}   {row['seconds']:6.0f} s", flush=True)
    if arguments.as_json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
