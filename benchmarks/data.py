"""Times preparing Medical MNIST beside torchvision reading the same files once, and watches the memory it needs.

Preparing is the whole of `sparseguard data prepare`: listing, decoding on all cores, parting, looking for copies,
writing; from the archive and from a folder. Beside it, torchvision's `ImageFolder` behind a `DataLoader` decodes the
same files from the folder to the same pixels, without keeping them, in as many processes as there are cores, and in
none. Cases alternate; the median of the repeats is shown. Then all prepared images are read in shuffled batches as
float32. Memory is the anonymous memory of a process that prepares, as the kernel counts it, beyond what it had before
(Linux only).

    python benchmarks/data.py --from medical-mnist.tar.gz [--limit N] [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sparseguard.data import MedicalMnist
from sparseguard.data.readers.archive import open_images

CORES = len(os.sched_getaffinity(0))
SIZES = (5_000, 20_000)
"""Images that are prepared while memory is watched, besides all of them."""

BATCH, INTERVAL = 256, 0.01


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the archive of Medical MNIST")
    parser.add_argument("--limit", type=int, help="take so many of its images, evenly over the classes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watched:
        input("ready\n")
        MedicalMnist(path=arguments.source).prepare()
        return 0
    console = Console()
    with console.status("unpacking") as status, tempfile.TemporaryDirectory() as temporary:
        os.environ["SPARSEGUARD_CACHE"] = f"{temporary}/cache"
        work = Path(temporary)
        archive, count = _copy_images(arguments.source, arguments.limit, work)
        _unpack(archive, work / "files")
        rates = _rates(archive, work, count, arguments.repeats, status.update)
        sizes = [size for size in SIZES if size < count] + [count]
        memory = {}
        for size in sizes:
            status.update(f"watching the memory of preparing {size:,} images")
            memory[size] = _measure_memory(_copy_images(arguments.source, size, work)[0])
    result = {
        "images": count,
        "images_per_second": rates,
        "ratios": {
            name: {peer: rates[name] / rates[peer] for peer in rates if peer.startswith("torchvision")}
            for name in rates
            if name.startswith("prepare")
        },
        "anonymous_bytes_by_images": memory,
        "cores": CORES,
        "load": os.getloadavg()[0],
        "repeats": arguments.repeats,
        "torch": torch.__version__,
    }
    _show(console, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _rates(archive: Path, work: Path, count: int, repeats: int, report: Callable[[str], None]) -> dict[str, float]:
    """Return images per second of every case, the median of alternating repeats."""
    cases: dict[str, Callable[[], None]] = {
        "prepare, from the archive": lambda: _prepare(archive),
        f"torchvision, {CORES} workers": lambda: _torchvision(work / "files", CORES),
        "prepare, from the folder": lambda: _prepare(work / "files"),
        "torchvision, no workers": lambda: _torchvision(work / "files", 0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats):
        for name, run in cases.items():
            report(f"{name}, {repeat + 1} of {repeats}")
            seconds[name].append(_seconds(run))
    prepared = MedicalMnist(path=archive)
    prepared.prepare()
    report("reading the prepared set")
    seconds["reading what is prepared, shuffled, as float32"] = [_seconds(lambda: _read(prepared)) for _ in range(5)]
    return {name: count / statistics.median(times) for name, times in seconds.items()}


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _prepare(path: Path) -> None:
    shutil.rmtree(os.environ["SPARSEGUARD_CACHE"], ignore_errors=True)
    MedicalMnist(path=path).prepare()


def _torchvision(folder: Path, workers: int) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Grayscale, PILToTensor

    images = ImageFolder(str(folder), Compose([Grayscale(), PILToTensor()]))
    for _ in torch.utils.data.DataLoader(images, batch_size=BATCH, num_workers=workers):
        pass


def _read(dataset: MedicalMnist) -> None:
    for images in dataset.load().by_name().values():
        for index in torch.randperm(len(images)).split(BATCH):
            images.select(index).pixels.float().div_(255)


def _copy_images(source: Path, limit: int | None, work: Path) -> tuple[Path, int]:
    """Return an archive of so many of the images, and how many it has."""
    with open_images(source) as images:
        items = images.items()
        if limit is None or limit >= len(items):
            return source, len(items)
        chosen = [items[k * len(items) // limit] for k in range(limit)]
        path = work / f"{limit}.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for place, content in images.stream(chosen):
                member = tarfile.TarInfo(chosen[place].name)
                member.size = len(bytes(content))
                tar.addfile(member, io.BytesIO(bytes(content)))
    return path, limit


def _unpack(archive: Path, folder: Path) -> None:
    with open_images(archive) as images:
        items = images.items()
        for place, content in images.stream(items):
            path = folder / Path(*Path(items[place].name).parts[-2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(content))


def _measure_memory(archive: Path) -> int:
    """Return the most anonymous memory that a process preparing the archive had beyond what it began with, in bytes."""
    shutil.rmtree(os.environ["SPARSEGUARD_CACHE"], ignore_errors=True)
    command = [sys.executable, __file__, "--watched", "--from", str(archive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = most = _anonymous(child.pid)
        child.stdin.write("\n")
        child.stdin.close()
        while child.poll() is None:
            most = max(most, _anonymous(child.pid))
            time.sleep(INTERVAL)
    if child.returncode:
        raise SystemExit(f"preparing {archive} failed")
    return most - before


def _anonymous(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def _show(console: Console, result: dict[str, Any]) -> None:
    peers = [name for name in result["images_per_second"] if name.startswith("torchvision")]
    title = f"{result['images']:,} images, median of {result['repeats']}, {CORES} cores, load {result['load']:.1f}"
    table = Table("", "images a second", *(f"to {peer}" for peer in peers), title=title)
    for name, rate in result["images_per_second"].items():
        ratios = result["ratios"].get(name, {})
        table.add_row(name, f"{rate:,.0f}", *(f"{ratios[peer]:.2f}" if peer in ratios else "" for peer in peers))
    console.print(table)
    table = Table("images prepared", "anonymous memory beyond what was there", title="peak, sampled every 10 ms")
    for size, held in result["anonymous_bytes_by_images"].items():
        table.add_row(f"{size:,}", f"{held / 1e6:.0f} MB")
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
