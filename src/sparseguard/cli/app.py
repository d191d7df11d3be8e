"""The commands of ``sparseguard``. Imports torch only in commands that need it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseguard.cli.audit import audit_model
from sparseguard.cli.codes import EXIT_CODES, FLAGS, INTERRUPTED, OK, RECIPE, STORE
from sparseguard.cli.console import (
    OutputClosedError,
    open_console,
    prepare_streams,
    print_json,
    print_line,
    show_progress,
)
from sparseguard.cli.data import data_app
from sparseguard.cli.notices import print_notices
from sparseguard.cli.prior import prior_app
from sparseguard.cli.recipe import recipe_app
from sparseguard.cli.results import (
    MAX_DROP,
    end_by_status,
    read_all_pictures,
    show_json,
    show_page,
    show_tables,
    write_report,
)
from sparseguard.core.errors import SparseguardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparseguard.record import Record

app = typer.Typer(
    help="How much of the private images can an attacker reconstruct from what a model releases?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(prior_app, name="prior")
app.add_typer(data_app, name="data")
app.add_typer(recipe_app, name="recipe")
app.command("audit")(audit_model)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME of the recipe.")]
Folder = Annotated[Path, typer.Argument(help="A run folder.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the recipe, e.g. training.epochs=3. Repeatable."
    ),
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
        help="Accuracy a variant may lose where defenses are compared; 0.05: 5 points.",
    ),
]
Images = Annotated[bool, typer.Option("--with-images", help="Put private images and reconstructions into the page.")]
Full = Annotated[bool, typer.Option("--full", help="Show all tables instead of a compact one for each threat.")]


@app.command("list")
def list_components(as_json: Json = False) -> None:
    """List data sets, backbones, defenses, attacks, metrics, checks and shipped recipes."""
    from sparseguard.cli.catalog import collect_components

    components = collect_components()
    if as_json:
        print_json(components)
        return
    from rich.table import Table

    console = open_console()
    for kind, entries in components.items():
        table = Table("name", "summary", "settings and defaults", title=kind, title_justify="left")
        for entry in entries:
            table.add_row(entry["name"], entry["summary"], ", ".join(f"{k}={v}" for k, v in entry["settings"].items()))
        console.print(table)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped recipe (demo).")],
    changes: Set = None,
    out: Out = None,
    device: Device = "auto",
    retry_failed: Retry = False,
    batch: Batch = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Run a recipe's cases that are not yet in the run folder, write its page and show tables."""
    records, folder = _run(recipe, changes or [], out, device, retry_failed, batch)
    pictures = read_all_pictures(folder, records, required=False)
    page = write_report(folder, records, pictures)
    if as_json:
        show_json(records, pictures)
    else:
        show_tables(records, pictures, full=full)
        show_page(page, full)
    end_by_status(records)


@app.command()
def report(
    folder: Folder,
    with_images: Images = False,
    max_drop: MaxDrop = MAX_DROP,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Show the tables of a run folder and write its page, report.html."""
    from sparseguard.record import read_records

    records = read_records(folder)
    pictures = read_all_pictures(folder, records, required=with_images)
    page = write_report(folder, records, pictures, with_images, max_drop)
    if as_json:
        show_json(records, pictures, max_drop)
    else:
        show_tables(records, pictures, max_drop, full)
        show_page(page, full)


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
        for flag in raised:
            state = f"expected: {flag['expected']}" if flag["expected"] else "UNEXPECTED"
            print_line(f"{flag['case']}: {flag['name']}: {flag['message']} ({state})")
        for failure in failed:
            print_line(f"{failure['case']}: FAILED: {failure['message']}")
        unexpected = sum(not flag["expected"] for flag in raised)
        print_line(f"{len(records)} cases, {len(raised)} flags, {unexpected} unexpected, {len(failed)} failed")
    if any(not flag["expected"] for flag in raised):
        raise typer.Exit(FLAGS)
    end_by_status(records)


@app.command()
def demo(out: Out = None, device: Device = "auto", full: Full = False, as_json: Json = False) -> None:
    """Run the demo recipe on real images that ship with the package, and write its page with pictures."""
    from sparseguard.report import describe_findings

    records, folder = _run("demo", [], out, device, False)
    pictures = read_all_pictures(folder, records, required=True)
    page = write_report(folder, records, pictures, with_images=True)
    if as_json:
        show_json(records, pictures)
    else:
        show_tables(records, pictures, full=full)
        for sentence in describe_findings(records, pictures):
            open_console().print(sentence)
        show_page(page, full)
    end_by_status(records)


def main() -> None:
    """Run the command line; errors that the user can fix are one message and an exit code."""
    prepare_streams()
    try:
        with print_notices():
            code = app(standalone_mode=False) or OK
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer answers an interrupt so, and is silent about it
            raise KeyboardInterrupt
    except SparseguardError as error:
        _complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted. What is finished is kept; run the same command again to continue.")
        code = INTERRUPTED
    except (BrokenPipeError, OutputClosedError):
        code = OK
        _discard_output()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EBADF, errno.EIO) or error.filename is not None:
            raise
        _complain(f"standard output cannot be written ({error.strerror}).")
        code = STORE
        _discard_output()
    except Exception as error:
        if not _is_usage_error(error):
            raise
        _show_usage_error(error)
        code = RECIPE
    sys.exit(code)


def _discard_output() -> None:
    """Send what standard output still holds nowhere, so that the end of the process does not raise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_usage_error(error: Exception) -> bool:
    return any(base.__name__ == "UsageError" for base in type(error).__mro__)


def _show_usage_error(error: Any) -> None:
    error.show()


def _run(
    recipe: str, changes: list[str], out: Path | None, device: str, retry_failed: bool, batch: int | None = None
) -> tuple[Sequence[Record], Path]:
    from sparseguard.pipeline import limit_batch_size, load_recipe
    from sparseguard.pipeline import run as run_recipe

    parsed = load_recipe(recipe, changes)
    if batch is not None:
        parsed = limit_batch_size(parsed, batch)
    folder = out or Path("runs") / parsed.name
    with show_progress() as progress:
        outcome = run_recipe(parsed, folder, device=device, retry_failed=retry_failed, progress=progress)
    stored = len(outcome.records) - outcome.computed
    open_console(stderr=True).print(
        f"{outcome.computed} cases run, {stored} already there, in {folder}", soft_wrap=True
    )
    return outcome.records, folder


def _complain(message: str) -> None:
    open_console(stderr=True).print(f"sparseguard: {message}", style="red", soft_wrap=True)
