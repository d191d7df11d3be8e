"""``sparseguard audit``. Imports torch only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sparseguard.cli.console import open_console, print_line, show_progress
from sparseguard.cli.results import end_by_status, read_all_pictures, show_json, show_page, show_tables, write_report
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparseguard.record import Record

MAX_SIDE = 4096
T = TypeVar("T", int, float)


def audit_model(
    model: Annotated[
        str, typer.Option(help="package.module:function or FILE.py:function that returns the model, or a FILE.pt2.")
    ],
    private: Annotated[
        Path, typer.Option(help="Images the model was trained on: class folders, an archive of them, or .npz.")
    ],
    held_out: Annotated[Path, typer.Option(help="Images of the same kind that it was not trained on.")],
    tap: Annotated[list[str], typer.Option(help="Module whose output the attacker sees, or logits. Repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for records and the page; the same command continues there.")],
    weights: Annotated[
        Path | None, typer.Option(help="safetensors, or a state dict that torch.load reads with weights_only.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Resize images to this size. Default: as they are.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1: grey, 3: colour.")] = 3,
    mean: Annotated[
        str, typer.Option(metavar="A,B,C", help="Mean that is subtracted from each channel before the model.")
    ] = "",
    std: Annotated[
        str, typer.Option(metavar="A,B,C", help="Standard deviation that each channel is divided by then.")
    ] = "",
    classes: Annotated[
        str, typer.Option(metavar="A,B,...", help="Classes in the order of the logits. Default: sorted by name.")
    ] = "",
    flips_keep_class: Annotated[
        bool, typer.Option("--flips-keep-class", help="A mirror image belongs to the same class.")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the model in tables.")] = "your model",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    with_images: Annotated[bool, typer.Option("--with-images", help="Put private images into the page.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Show all tables instead of a compact one for each tap.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")] = False,
) -> None:
    """Attack your own model at the taps you name, and say in words what leaks."""
    from sparseguard.data.image_files import read_images
    from sparseguard.data.preparation.decode_image import ImageFormat
    from sparseguard.model_audit.load_inputs import align_classes, load_model
    from sparseguard.model_audit.runner import audit

    sides = [] if size is None else _parse_numbers(size, "--size", int)
    if len(sides) not in (0, 2) or not all(1 <= side <= MAX_SIDE for side in sides):
        raise RecipeError(f"--size {size}: expected height and width, each from 1 to {MAX_SIDE}, e.g. 64,64.")
    if channels not in (1, 3):
        raise RecipeError(f"--channels {channels}: expected 1 (grey) or 3 (colour).")
    look = ImageFormat(size=(sides[0], sides[1]) if sides else None, channels=3 if channels == 3 else 1)
    means, stds = _parse_numbers(mean, "--mean", float), _parse_numbers(std, "--std", float)
    with show_progress() as progress:
        network = load_model(model, weights, mean=means, std=stds, progress=progress)
        sets = [read_images(path, look, progress) for path in (private, held_out)]
        images = align_classes(sets, [word.strip() for word in classes.split(",")] if classes else [])
        outcome = audit(
            network, *images, taps=tap, out=out, name=name, flips_keep_class=flips_keep_class, device=device,
            progress=progress,
        )  # fmt: skip
    records = outcome.records
    pictures = read_all_pictures(out, records, required=True)
    page = write_report(out, records, pictures, with_images)
    if as_json:
        show_json(records, pictures)
    else:
        show_tables(records, pictures, full=full)
        _show_verdicts(records)
        show_page(page, full)
    end_by_status(records)


def _show_verdicts(records: Sequence[Record]) -> None:
    from sparseguard.report import verdict

    for record in records:
        words = verdict(record)
        print_line(f"{words.tap}: {words.severity.upper()}")
        for sentence in words.sentences:
            open_console().print(f"  {sentence}")


def _parse_numbers(text: str, option: str, kind: type[T]) -> list[T]:
    try:
        return [kind(word) for word in text.split(",")] if text else []
    except ValueError:
        raise RecipeError(f"{option} {text}: expected numbers with commas between them.") from None
