"""The command line: argument parsing and showing, nothing else. Imports torch only in commands that need it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparseguard.cli.audit import audit
from sparseguard.cli.console import console, print_json, progress
from sparseguard.cli.data import data
from sparseguard.cli.prior import prior
from sparseguard.core.errors import SparseguardError, StoreError

if TYPE_CHECKING:
    from sparseguard.record import Pictures, Record

MAX_DROP = 0.05
OK, INTERNAL, RECIPE, DATA, STORE, FAILED_CASES, FLAGS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

EXIT_CODES = """Exit codes: 0 done; 1 an error inside sparseguard; 2 a recipe, option or setting that cannot be used;
3 data missing or damaged; 4 output folder in use, full, not writable or damaged; 5 some cases failed;
6 a check raised a flag the recipe does not expect; 130 interrupted."""

app = typer.Typer(
    help="How much of the private images can an attacker get back from what a model gives away?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(prior, name="prior")
app.add_typer(data, name="data")
app.command()(audit)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME of the recipe.")]
Folder = Annotated[Path, typer.Argument(help="A run folder.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe, e.g. fit.epochs=3. Repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run failed cases again.")]
Batch = Annotated[
    int | None,
    typer.Option("--batch", min=1, help="Images at once in searches by gradients: less memory, the same results."),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        help="Accuracy a setting may lose where defenses are compared; 0.05: 5 points.",
    ),
]
Images = Annotated[bool, typer.Option("--with-images", help="Put private images and reconstructions into the page.")]


@app.command("list")
def list_pieces(as_json: Json = False) -> None:
    """List data sets, backbones, defenses, attacks, metrics, checks and shipped recipes."""
    from sparseguard.cli.catalog import pieces

    found = pieces()
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    shown = console()
    for kind, entries in found.items():
        table = Table("name", "what", "settings and defaults", title=kind, title_justify="left")
        for entry in entries:
            table.add_row(entry["name"], entry["summary"], ", ".join(f"{k}={v}" for k, v in entry["settings"].items()))
        shown.print(table)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped recipe (demo).")],
    changes: Set = None,
    out: Out = None,
    device: Device = "auto",
    retry_failed: Retry = False,
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Run a recipe's cases that are not yet in the run folder, and show the table."""
    records, folder = _run(recipe, changes or [], out, device, retry_failed, batch)
    _show(records, _pictures(folder, records, needed=False), as_json)
    _end_by_status(records)


@app.command()
def report(folder: Folder, with_images: Images = False, max_drop: MaxDrop = MAX_DROP, as_json: Json = False) -> None:
    """Show the table of a run folder and write its page, report.html."""
    from sparseguard.record import read_records

    records = read_records(folder)
    pictures = _pictures(folder, records, needed=with_images)
    page = _write_page(folder, records, pictures, with_images, max_drop)
    _show(records, pictures, as_json, max_drop)
    if not as_json:
        console().print(f"page: {page}", soft_wrap=True)


@app.command()
def check(folder: Folder, as_json: Json = False) -> None:
    """List the flags that checks of the evaluation raised; exit with 6 if the recipe does not expect one."""
    from sparseguard.record import read_records

    records = read_records(folder)
    raised = [{"case": record.case.slug, **flag.model_dump()} for record in records for flag in record.flags]
    failed = [
        {"case": record.case.slug, **record.failure.model_dump()} for record in records if record.failure is not None
    ]
    if as_json:
        print_json({"cases": len(records), "flags": raised, "failed": failed})
    else:
        shown = console()
        for flag in raised:
            state = f"expected: {flag['expected']}" if flag["expected"] else "UNEXPECTED"
            shown.print(f"{flag['case']}: {flag['name']}: {flag['message']} ({state})", markup=False)
        for failure in failed:
            shown.print(f"{failure['case']}: FAILED: {failure['message']}", markup=False)
        unexpected = sum(not flag["expected"] for flag in raised)
        shown.print(f"{len(records)} cases, {len(raised)} flags, {unexpected} unexpected, {len(failed)} failed")
    if any(not flag["expected"] for flag in raised):
        raise typer.Exit(FLAGS)
    _end_by_status(records)


@app.command()
def demo(out: Out = None, device: Device = "auto", as_json: Json = False) -> None:
    """Run the demo recipe on real images that ship with the package, and write its page with pictures."""
    records, folder = _run("demo", [], out, device, False)
    pictures = _pictures(folder, records, needed=True)
    page = _write_page(folder, records, pictures, with_images=True)
    _show(records, pictures, as_json)
    if not as_json:
        console().print(f"page: {page}", soft_wrap=True)
    _end_by_status(records)


def main() -> None:
    """Run the command line; errors a user can mend are one message and an exit code."""
    try:
        code = app(standalone_mode=False) or OK
        if code == INTERRUPTED:  # typer answers an interrupt so, and is silent about it
            raise KeyboardInterrupt
    except SparseguardError as error:
        _complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted. What is finished is kept; run the same command again to go on.")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        code = RECIPE
    sys.exit(code)


def _is_usage_error(error: Exception) -> bool:
    return any(base.__name__ == "UsageError" for base in type(error).__mro__)


def _run(
    recipe: str, changes: list[str], out: Path | None, device: str, retry_failed: bool, batch: int | None = None
) -> tuple[list[Record], Path]:
    from sparseguard.pipeline import limit_batch_size, load_recipe
    from sparseguard.pipeline import run as run_recipe

    parsed = load_recipe(recipe, changes)
    if batch is not None:
        parsed = limit_batch_size(parsed, batch)
    folder = out or Path("runs") / parsed.name
    with progress() as shown:
        outcome = run_recipe(parsed, folder, device=device, retry_failed=retry_failed, progress=shown)
    there = len(outcome.records) - outcome.computed
    console(stderr=True).print(f"{outcome.computed} cases run, {there} already there, in {folder}", soft_wrap=True)
    return outcome.records, folder


def _pictures(folder: Path, records: list[Record], needed: bool) -> dict[str, Pictures]:
    """Read what lies beside the records; without ``needed``, what cannot be read is left out."""
    from sparseguard.record import read_pictures

    found = {}
    for record in records:
        if record.status == "ok":
            try:
                found[record.case.slug] = read_pictures(folder / "records" / f"{record.case.slug}.safetensors")
            except StoreError:
                if needed:
                    raise
    return found


def _write_page(
    folder: Path, records: list[Record], pictures: dict[str, Pictures], with_images: bool, max_drop: float = MAX_DROP
) -> Path:
    from sparseguard.report import write_page

    page = folder / "report.html"
    write_page(records, pictures, page, with_images, max_drop)
    return page


def _show(records: list[Record], pictures: dict[str, Pictures], as_json: bool, max_drop: float = MAX_DROP) -> None:
    from sparseguard.report import render, to_json

    if as_json:
        print_json(to_json(records, pictures, max_drop))
        return
    for table in render(records, pictures, max_drop):
        console().print(table)


def _end_by_status(records: list[Record]) -> None:
    if any(record.status == "failed" for record in records):
        raise typer.Exit(FAILED_CASES)


def _complain(message: str) -> None:
    console(stderr=True).print(f"sparseguard: {message}", style="red", markup=False, soft_wrap=True)
