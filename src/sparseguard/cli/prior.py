"""``sparseguard prior``. Imports torch only in commands that need it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseguard.cli.console import open_console, print_json, print_line, show_progress
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from sparseguard.generators import PriorCard
    from sparseguard.pipeline.prior_training.train import TrainedPrior

prior_app = typer.Typer(
    help="Generators that attacks search: list, train, import and sample them.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The prior's folder, which must not be there.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="data.KEY=VALUE", help="A setting of the data set, e.g. data.path=FOLDER."),
]
ClassNames = Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of classes, with commas between them.")]
Name = Annotated[str | None, typer.Option(help="Its name in tables. Default: the folder's name.")]


@prior_app.command("list")
def list_priors(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of further priors.")] = None,
    as_json: Json = False,
) -> None:
    """List the priors that ship with the package, and those in the folders given."""
    from sparseguard.generators import find_prior, list_shipped_priors

    sources = list_shipped_priors() | {str(folder): find_prior(folder) for folder in folders or []}
    entries = [_entry(source, folder) for source, folder in sources.items()]
    if as_json:
        print_json(entries)
        return
    from rich.table import Table

    table = Table("prior", "name", "kind", "shape", "w", "classes", "fingerprints", "MB")
    for entry in entries:
        w = f"{entry['num_ws']} x {entry['w_dim']}" if entry["num_ws"] else "none"
        shape = " x ".join(map(str, entry["shape"]))
        classes = "unknown" if entry["classes"] is None else ", ".join(entry["classes"])
        prints = "unknown" if entry["fingerprints"] is None else f"{entry['fingerprints']:,}"
        size = f"{entry['megabytes']:.1f}"
        table.add_row(entry["source"], entry["name"], entry["kind"], shape, w, classes, prints, size)
    open_console().print(table)
    for entry in entries:
        print_line(f"{entry['source']}: trained on {entry['trained_on']}")


@prior_app.command()
def train(
    out: Out,
    data: Annotated[str, typer.Option(help="The data set whose auxiliary split it learns, e.g. fashion-mini.")],
    changes: Changes = None,
    classes: ClassNames = None,
    name: Name = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images shown in all, repetitions counted.")] = None,
    fits: Annotated[
        list[str] | None, typer.Option("--fit", metavar="KEY=VALUE", help="A setting of the training, e.g. width=24.")
    ] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: Json = False,
) -> None:
    """Train a small style-based prior on the auxiliary split alone; interrupted, the same command continues."""
    from sparseguard.core.device import parse_device
    from sparseguard.pipeline.prior_training.train import parse_dataset, parse_training, train_prior

    fit, dataset, place = parse_training(fits or [], images), parse_dataset(data, changes or []), parse_device(device)
    with show_progress() as progress:
        trained = train_prior(
            out, dataset, fit, name=_choose_name(name, out), classes=_parse_names(classes, "--classes"), seed=seed,
            device=place, progress=progress,
        )  # fmt: skip
    _show_trained(out, trained, as_json)


@prior_app.command("import")
def import_prior(
    out: Out,
    official: Annotated[Path | None, typer.Option(metavar="FILE.pkl", help="One of NVIDIA's networks.")] = None,
    checkout: Annotated[Path | None, typer.Option(help="With --official: a clone of NVIDIA's repository.")] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="With --official: reading the file runs code that is in it.")
    ] = False,
    condition: Annotated[int | None, typer.Option(help="With --official: the class images are drawn of.")] = None,
    factory: Annotated[
        str | None, typer.Option(metavar="PATH.py:FUNCTION", help="Your function that makes the network.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="With --factory: its state dict, as safetensors or from torch.save.")
    ] = None,
    latent: Annotated[
        str | None, typer.Option(metavar="N,...", help="With --factory: shape of one z, e.g. 100,1,1.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="With --factory: black and white, e.g. --output=-1,1.")
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--argument", metavar="KEY=VALUE", help="With --factory: what the function is called with."),
    ] = None,
    name: Name = None,
    trained_on: Annotated[str, typer.Option(help="One sentence on the images it was trained on.")] = "unknown",
    classes: ClassNames = None,
    fingerprints_of: Annotated[
        str | None, typer.Option(metavar="DATA", help="The data set on whose auxiliary split it was trained.")
    ] = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Make a prior of one of NVIDIA's networks, or of your own generator."""
    of_official = {"--checkout": checkout}
    of_factory = {"--weights": weights, "--latent": latent, "--output": output}
    if official is not None:
        _check_options(
            "--official", needed=of_official, refused={"--factory": factory, "--argument": arguments, **of_factory}
        )
    elif factory is not None:
        refused = {"--condition": condition, "--trust-pickle": trust_pickle or None, **of_official}
        _check_options("--factory", needed=of_factory, refused=refused)
    else:
        raise RecipeError("prior import: give --official FILE.pkl, or --factory PATH.py:FUNCTION.")
    about: dict[str, Any] = {
        "name": _choose_name(name, out),
        "trained_on": trained_on,
        "classes": _parse_names(classes, "--classes"),
        "known": _fingerprints(fingerprints_of, changes or []),
    }
    if official is not None and checkout is not None:
        from sparseguard.generators.external.nvidia.import_pickle import import_official

        import_official(
            out, pickle=official, checkout=checkout, trust_pickle=trust_pickle, condition=condition, **about
        )
    elif factory is not None and weights is not None:
        from sparseguard.generators.external.import_module import import_module_prior

        low, high = _parse_numbers(output, float, "--output", 2)
        import_module_prior(
            out, factory=factory, weights=weights, latent=_parse_numbers(latent, int, "--latent"), output=(low, high),
            arguments=_parse_arguments(arguments or []), **about,
        )  # fmt: skip
    _show_imported(out, as_json)


@prior_app.command()
def sample(
    source: Annotated[str, typer.Argument(help="A prior's folder, or the name of one that ships with the package.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="The picture; replaced if it is there.")],
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 64,
    truncation: Annotated[float, typer.Option(help="0: all the mean image; 1: as far from it as in training.")] = 0.7,
    seed: int = 0,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the Python that an imported prior's folder names.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a grid of images that a prior makes."""
    from sparseguard.generators import load_prior
    from sparseguard.generators.sampling import write_samples

    if out.suffix.lower() != ".png":
        raise RecipeError(f"--out {out}: expected a name that ends in .png.")
    if not math.isfinite(truncation):
        raise RecipeError(f"--truncation {truncation}: must be a number.")
    loaded = load_prior(source, trust_code=trust_code)
    write_samples(out, loaded, count, truncation=truncation, seed=seed)
    if as_json:
        print_json({"file": str(out), "prior": loaded.card.name, "count": count, "truncation": truncation})
    else:
        print_line(f"{count} images of {loaded.card.name}: {out}")


def _entry(source: str, folder: Path) -> dict[str, Any]:
    from sparseguard.generators import count_fingerprints, read_card

    card = read_card(folder)
    prints = count_fingerprints(folder)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {"source": source, **_facts(card), "fingerprints": prints, "megabytes": round(size / 1e6, 3)}


def _facts(card: PriorCard) -> dict[str, Any]:
    return card.model_dump(
        mode="json", include={"name", "kind", "shape", "latent", "num_ws", "w_dim", "classes", "trained_on"}
    )


def _choose_name(name: str | None, out: Path) -> str:
    chosen = out.resolve().name if name is None else name
    if not chosen:
        raise RecipeError("--name: must not be empty.")
    return chosen


def _parse_names(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise RecipeError(f"{option} '{text}': expected names with commas between them.")
    return words


def _parse_numbers(text: str | None, kind: type[int] | type[float], option: str, count: int | None = None) -> list[Any]:
    example = "-1,1" if kind is float else "100,1,1"
    try:
        numbers = [kind(word) for word in (text or "").split(",")]
    except ValueError:
        numbers = []
    fits = len(numbers) == (count or len(numbers)) and all(math.isfinite(value) for value in numbers)
    if not numbers or not fits or (kind is int and min(numbers) < 1):
        raise RecipeError(f"{option} '{text}': expected numbers with commas between them, such as {option}={example}.")
    return numbers


def _parse_arguments(changes: list[str]) -> dict[str, Any]:
    from sparseguard.pipeline.recipe.overrides import apply_override

    table: dict[str, Any] = {}
    for change in changes:
        if "=" not in change:
            raise RecipeError(f"--argument {change}: expected KEY=VALUE, such as width=64.")
        apply_override(table, change)
    return table


def _check_options(option: str, *, needed: dict[str, Any], refused: dict[str, Any]) -> None:
    """Refuse an import that lacks what ``option`` needs, or is given what belongs to another."""
    if missing := [name for name, value in needed.items() if value is None]:
        raise RecipeError(f"{option} needs {' and '.join(missing)} too.")
    if extra := [name for name, value in refused.items() if value is not None]:
        raise RecipeError(f"{option} and {extra[0]} do not go together.")


def _fingerprints(name: str | None, changes: list[str]) -> Any:
    """Return the fingerprints of a data set's auxiliary split; None without a data set."""
    if name is None:
        if changes:
            raise RecipeError(f"--set {changes[0]}: is for --fingerprints-of, which is not given.")
        return None
    from sparseguard.pipeline.prior_training.train import hash_auxiliary, parse_dataset

    return hash_auxiliary(parse_dataset(name, changes))


def _show_trained(out: Path, trained: TrainedPrior, as_json: bool) -> None:
    distance = trained.evaluator
    if as_json:
        measured = {
            "distance": None if distance is None else distance.name,
            "between_halves": None if distance is None else distance.between_halves,
        }
        print_json({"folder": str(out), **_facts(trained.card), **measured, "history": trained.history})
        return
    from rich.table import Table

    column = "distance" if distance is None else distance.name
    table = Table("images shown", column, "augmentation", title=trained.card.name, title_justify="left")
    for entry in trained.history:
        value = f"{entry['distance']:.4g}" if "distance" in entry else "none: too few images"
        table.add_row(f"{int(entry['images']):,}", value, f"{entry['augmentation']:.2f}")
    if distance is not None:
        table.add_section()
        table.add_row("real to real", f"{distance.between_halves:.4g}", "")
    open_console().print(table)
    print_line(f"prior: {out}, its samples: {out / 'samples.png'}")


def _show_imported(out: Path, as_json: bool) -> None:
    from sparseguard.generators import load_prior
    from sparseguard.generators.sampling import SAMPLES, write_samples

    write_samples(out / SAMPLES, load_prior(out, trust_code=True))
    entry = _entry(str(out), out)
    if as_json:
        print_json(entry)
        return
    prints = "unknown" if entry["fingerprints"] is None else f"{entry['fingerprints']:,}"
    line = f"{out}: {entry['name']}, {entry['kind']}, {' x '.join(map(str, entry['shape']))}, images seen: {prints}"
    print_line(line)
    print_line(f"its samples: {out / SAMPLES}")
