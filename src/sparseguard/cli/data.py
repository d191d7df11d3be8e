"""``sparseguard data``. Imports torch only in commands that need it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseguard.cli.console import open_console, print_json, print_line, show_progress
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from sparseguard.data import DataSet

data_app = typer.Typer(
    help="Data sets: list them, prepare their files once, look at what is prepared.", no_args_is_help=True
)

MAX_NAMES = 5
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Name = Annotated[str, typer.Argument(help="A data set, e.g. medical-mnist, or images for your own.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the data set, e.g. size=[64,64].")
]
From = Annotated[Path | None, typer.Option("--from", metavar="PATH", help="The folder or file the images are in.")]


@data_app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the data sets, their settings, and how often each is prepared."""
    from sparseguard.core.config import describe
    from sparseguard.data import DATASETS
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": kind.summary,
            "settings": describe(dataset),
            "prepared": [str(folder) for folder in dataset.prepared()] if isinstance(dataset, PreparedSet) else None,
        }
        for name, kind in DATASETS.items()
        for dataset in (kind(),)
    ]
    if as_json:
        print_json(entries)
        return
    from rich.table import Table

    table = Table("name", "summary", "settings and defaults", "prepared")
    for entry in entries:
        settings = ", ".join(f"{key}={value}" for key, value in entry["settings"].items())
        prepared = "read directly" if entry["prepared"] is None else str(len(entry["prepared"]))
        table.add_row(entry["name"], entry["summary"], settings, prepared)
    open_console().print(table)


@data_app.command()
def prepare(name: Name, source: From = None, changes: Changes = None, as_json: Json = False) -> None:
    """Decode a set's files once into a memory-mapped array; interrupted, the same command goes on."""
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    dataset = _data_set(name, source, changes or [])
    if isinstance(dataset, PreparedSet):
        with show_progress() as progress:
            facts = _describe_prepared(dataset.prepare(progress))
    else:
        facts = _describe_direct(dataset)
    _show([facts], as_json)


@data_app.command()
def info(name: Name, source: From = None, changes: Changes = None, as_json: Json = False) -> None:
    """Show classes, sizes of splits, exact duplicates, and files that were left out or converted, by name.

    Of a prepared set, everything that is prepared under this name is shown.
    """
    from sparseguard.data.preparation.prepared_dataset import PreparedSet

    dataset = _data_set(name, source, changes or [])
    if isinstance(dataset, PreparedSet):
        facts = [_describe_prepared(folder) for folder in dataset.prepared()]
        if not facts:
            raise RecipeError(f"{name}: nothing is prepared. Run: sparseguard data prepare {name} --from PATH")
    else:
        facts = [_describe_direct(dataset)]
    _show(facts, as_json)


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


def _describe_prepared(folder: Path) -> dict[str, Any]:
    from sparseguard.data.preparation.prepared_dataset import read_metadata, read_prepared

    return {"folder": str(folder), "shape": list(read_prepared(folder).private.shape), **read_metadata(folder)}


def _describe_direct(dataset: DataSet) -> dict[str, Any]:
    """Return the same facts of a set that needs no preparation."""
    from sparseguard.core.config import describe
    from sparseguard.data.preparation.duplicates import count_split_copies

    splits = dataset.load()
    return {
        "name": splits.name,
        "folder": None,
        "shape": list(splits.private.shape),
        "layout": splits.layout,
        "classes": list(splits.private.classes),
        "flips_keep_class": splits.flips_keep_class,
        "settings": describe(dataset),
        "sizes": {split: len(images) for split, images in splits.by_name().items()},
        "duplicates": count_split_copies(splits),
        "notes": {},
    }


def _show(sets: list[dict[str, Any]], as_json: bool) -> None:
    for facts in sets:
        facts.setdefault("sizes", {split: end - start for split, (start, end) in facts.get("parts", {}).items()})
    if as_json:
        print_json(sets)
        return
    for facts in sets:
        for line in _lines(facts):
            print_line(line)


def _lines(facts: dict[str, Any]) -> list[str]:
    copies = facts["duplicates"]
    across = ", ".join(f"{pair} {count:,}" for pair, count in copies["across"].items() if count)
    lines = [
        f"{facts['name']}: {facts['folder'] or 'read directly, nothing to prepare'}",
        f"  images: {' x '.join(map(str, facts['shape']))}; {_counted(facts['sizes'])}",
        f"  classes: {', '.join(facts['classes'])}",
        f"  settings: {_counted(facts['settings'])}",
        f"  exact copies of images in an earlier split: {copies['images_across']:,}"
        + (f" ({across})" if across else "")
        + (", removed" if copies.get("removed") else ""),
        f"  exact copies within splits: {sum(copies['within'].values()):,}; "
        f"of another class: {copies['other_label']:,}",
    ]
    for reason, names in facts["notes"].items():
        more = f" and {len(names) - MAX_NAMES:,} more (--json lists all)" if len(names) > MAX_NAMES else ""
        lines.append(f"  {reason}: {len(names):,}: {', '.join(names[:MAX_NAMES])}{more}")
    return lines


def _counted(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in values.items())


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
