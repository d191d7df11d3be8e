"""``sparseguard audit``: argument parsing and showing, nothing else. Imports torch only when it is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sparseguard.cli.console import console, print_json, progress
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from sparseguard.record import Record

FAILED_CASES = 5
MAX_SIDE = 4096
T = TypeVar("T", int, float)


def audit(
    model: Annotated[
        str, typer.Option(help="package.module:function or FILE.py:function that returns the model, or a FILE.pt2.")
    ],
    private: Annotated[
        Path, typer.Option(help="Images it was trained on: class folders, an archive of them, or .npz.")
    ],
    held_out: Annotated[Path, typer.Option(help="Images of the same kind it was not trained on.")],
    tap: Annotated[list[str], typer.Option(help="Module whose output leaks, or logits. Repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for records and the page; the same command goes on there.")],
    weights: Annotated[
        Path | None, typer.Option(help="safetensors, or a state dict that torch.load reads with weights_only.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Resize images to this. Default: as they are.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1: grey, 3: colour.")] = 3,
    mean: Annotated[str, typer.Option(metavar="A,B,C", help="Subtracted before the model, for each channel.")] = "",
    std: Annotated[str, typer.Option(metavar="A,B,C", help="Divided by after that.")] = "",
    classes: Annotated[
        str, typer.Option(metavar="A,B,...", help="Classes in the order of the logits. Default: sorted by name.")
    ] = "",
    flips_keep_class: Annotated[bool, typer.Option("--flips-keep-class", help="Mirror images are as good.")] = False,
    name: Annotated[str, typer.Option(help="What tables call the model.")] = "your model",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    with_images: Annotated[bool, typer.Option("--with-images", help="Put private images into the page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")] = False,
) -> None:
    """Attack your own model at the taps you name, and say in words what leaks."""
    from sparseguard.data.image_files import read_images
    from sparseguard.data.preparation.decode_image import Look
    from sparseguard.model_audit.load_inputs import align_classes, load_model
    from sparseguard.model_audit.runner import audit as audited
    from sparseguard.record import read_pictures
    from sparseguard.report import render, to_json, write_page
    from sparseguard.report.verdict import verdict

    sides = [] if size is None else _numbers(size, "--size", int)
    if len(sides) not in (0, 2) or not all(1 <= side <= MAX_SIDE for side in sides):
        raise RecipeError(f"--size {size}: expected height and width, each from 1 to {MAX_SIDE}, e.g. 64,64.")
    if channels not in (1, 3):
        raise RecipeError(f"--channels {channels}: expected 1 (grey) or 3 (colour).")
    look = Look(size=(sides[0], sides[1]) if sides else None, channels=3 if channels == 3 else 1)
    with progress() as shown:
        network = load_model(
            model, weights, mean=_numbers(mean, "--mean", float), std=_numbers(std, "--std", float), progress=shown
        )
        read = [read_images(path, look, shown) for path in (private, held_out)]
        images = align_classes(read, [word.strip() for word in classes.split(",")] if classes else [])
        found = audited(
            network, *images, taps=tap, out=out, name=name, flips_keep_class=flips_keep_class, device=device,
            progress=shown,
        )  # fmt: skip
    pictures = {
        record.case.slug: read_pictures(out / "records" / f"{record.case.slug}.safetensors")
        for record in found.records
        if record.status == "ok"
    }
    write_page(found.records, pictures, out / "report.html", with_images, 0.05)
    verdicts = [verdict(record) for record in found.records]
    if as_json:
        told = [{"tap": one.tap, "severity": one.severity, "sentences": list(one.sentences)} for one in verdicts]
        print_json({"verdicts": told, **to_json(found.records, pictures, 0.05)})
    else:
        for table in render(found.records, pictures, 0.05):
            console().print(table)
        for one in verdicts:
            console().print(f"{one.tap}: {one.severity.upper()}", markup=False)
            for sentence in one.sentences:
                console().print(f"  {sentence}", markup=False)
        console().print(f"page: {out / 'report.html'}", soft_wrap=True, markup=False)
    _end(found.records)


def _numbers(text: str, option: str, kind: type[T]) -> list[T]:
    try:
        return [kind(word) for word in text.split(",")] if text else []
    except ValueError:
        raise RecipeError(f"{option} {text}: expected numbers with commas between them.") from None


def _end(records: list[Record]) -> None:
    if any(record.status == "failed" for record in records):
        raise typer.Exit(FAILED_CASES)
