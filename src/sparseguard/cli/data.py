"""``sparseguard data``: argument parsing and showing, nothing else. Imports torch only in commands that need it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseguard.cli.console import console, print_json, progress
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from sparseguard.data import DataSet

data = typer.Typer(
    help="Data sets: list them, prepare their files once, look at what is prepared.", no_args_is_help=True
)

MOST_NAMES = 5
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Name = Annotated[str, typer.Argument(help="A data set, e.g. medical-mnist, or images for your own.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the data set, e.g. size=[64,64].")
]
From = Annotated[Path | None, typer.Option("--from", metavar="PATH", help="The folder or file the images are in.")]


@data.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the data sets, their settings, and how often each is prepared."""
    from sparseguard.core.config import describe
    from sparseguard.data import DATASETS
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    found: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": kind.summary,
            "settings": describe(kind()),
            "prepared": [str(folder) for folder in one.prepared()] if isinstance(one := kind(), PreparedSet) else None,
        }
        for name, kind in DATASETS.items()
    ]
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    table = Table("name", "what", "settings and defaults", "prepared")
    for entry in found:
        told = ", ".join(f"{key}={value}" for key, value in entry["settings"].items())
        held = "read directly" if entry["prepared"] is None else str(len(entry["prepared"]))
        table.add_row(entry["name"], entry["summary"], told, held)
    console().print(table)


@data.command()
def prepare(name: Name, source: From = None, changes: Changes = None, as_json: Json = False) -> None:
    """Decode a set's files once into a memory-mapped array; interrupted, the same command goes on."""
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    dataset = _data_set(name, source, changes or [])
    if isinstance(dataset, PreparedSet):
        with progress() as shown:
            told = _prepared(dataset.prepare(shown))
    else:
        told = _direct(dataset)
    _show([told], as_json)


@data.command()
def info(name: Name, source: From = None, changes: Changes = None, as_json: Json = False) -> None:
    """Tell classes, sizes, parts, exact duplicates and what was left out or converted, by name.

    Of a set that is prepared, everything prepared under this name is told.
    """
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    dataset = _data_set(name, source, changes or [])
    if isinstance(dataset, PreparedSet):
        told = [_prepared(folder) for folder in dataset.prepared()]
        if not told:
            raise RecipeError(f"{name}: nothing is prepared. Run: sparseguard data prepare {name} --from PATH")
    else:
        told = [_direct(dataset)]
    _show(told, as_json)


def _data_set(name: str, source: Path | None, changes: list[str]) -> DataSet:
    from sparseguard.core.config import parse_named
    from sparseguard.data import DATASETS
    from sparseguard.pipeline.recipe.overrides import apply_override

    table: dict[str, Any] = {"data": {"name": name} | ({} if source is None else {"path": str(source)})}
    for change in changes:
        if "=" not in change:
            raise RecipeError(f"--set {change}: expected KEY=VALUE, such as channels=1.")
        apply_override(table, f"data.{change.removeprefix('data.')}")
    dataset: DataSet = parse_named(table["data"], DATASETS, "[data]")[1]
    return dataset


def _prepared(folder: Path) -> dict[str, Any]:
    from sparseguard.data.preparation.prepared_dataset import about, read

    return {"folder": str(folder), "shape": list(read(folder).private.shape), **about(folder)}


def _direct(dataset: DataSet) -> dict[str, Any]:
    """Tell the same of a set that is read without being prepared."""
    from sparseguard.core.config import describe
    from sparseguard.data.preparation.duplicates import copies_in

    splits = dataset.load()
    return {
        "name": splits.name,
        "folder": None,
        "shape": list(splits.private.shape),
        "layout": splits.layout,
        "classes": list(splits.private.classes),
        "flips_keep_class": splits.flips_keep_class,
        "settings": describe(dataset),
        "sizes": {part: len(images) for part, images in splits.parts().items()},
        "duplicates": copies_in(splits),
        "notes": {},
    }


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    for told in found:
        told.setdefault("sizes", {part: end - start for part, (start, end) in told.get("parts", {}).items()})
    if as_json:
        print_json(found)
        return
    shown = console()
    for told in found:
        for line in _lines(told):
            shown.print(line, markup=False, soft_wrap=True)


def _lines(told: dict[str, Any]) -> list[str]:
    copies = told["duplicates"]
    across = ", ".join(f"{pair} {count:,}" for pair, count in copies["across"].items() if count)
    lines = [
        f"{told['name']}: {told['folder'] or 'read directly, nothing to prepare'}",
        f"  images: {' x '.join(map(str, told['shape']))}; {_counted(told['sizes'])}",
        f"  classes: {', '.join(told['classes'])}",
        f"  settings: {_counted(told['settings'])}",
        f"  exact copies of images in an earlier part: {copies['images_across']:,}"
        + (f" ({across})" if across else "")
        + (", removed" if copies.get("removed") else ""),
        f"  exact copies within parts: {sum(copies['within'].values()):,}; of another class: {copies['other_label']:,}",
    ]
    for reason, names in told["notes"].items():
        more = f" and {len(names) - MOST_NAMES:,} more (--json lists all)" if len(names) > MOST_NAMES else ""
        lines.append(f"  {reason}: {len(names):,}: {', '.join(names[:MOST_NAMES])}{more}")
    return lines


def _counted(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in values.items())


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
