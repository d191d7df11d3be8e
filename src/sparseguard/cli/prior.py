"""``sparseguard prior``: argument parsing and showing, nothing else. Imports torch only in commands that need it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseguard.cli.console import console, print_json, progress
from sparseguard.core.errors import RecipeError

if TYPE_CHECKING:
    from sparseguard.generators import PriorCard
    from sparseguard.pipeline.prior_training.train import TrainedPrior

prior = typer.Typer(
    help="Generators that attacks search for images: list, train, import and look at them.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The prior's folder, which must not be there.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="data.KEY=VALUE", help="A setting of the data set, e.g. data.path=FOLDER."),
]
ClassNames = Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of classes, with commas between them.")]
Name = Annotated[str | None, typer.Option(help="What tables call it. Default: the folder's name.")]


@prior.command("list")
def list_priors(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of further priors.")] = None,
    as_json: Json = False,
) -> None:
    """List the priors that ship with the package, and those in the folders given."""
    from sparseguard.generators import find_prior, shipped_priors

    sources = shipped_priors() | {str(folder): find_prior(folder) for folder in folders or []}
    found = [_entry(source, folder) for source, folder in sources.items()]
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    table = Table("prior", "name", "kind", "shape", "w", "classes", "fingerprints", "MB")
    for one in found:
        w = f"{one['num_ws']} x {one['w_dim']}" if one["num_ws"] else "none"
        shape = " x ".join(map(str, one["shape"]))
        classes = "unknown" if one["classes"] is None else ", ".join(one["classes"])
        prints = "unknown" if one["fingerprints"] is None else f"{one['fingerprints']:,}"
        size = f"{one['megabytes']:.1f}"
        table.add_row(one["source"], one["name"], one["kind"], shape, w, classes, prints, size)
    console().print(table)
    for one in found:
        console().print(f"{one['source']}: trained on {one['trained_on']}", soft_wrap=True, markup=False)


@prior.command()
def train(
    out: Out,
    data: Annotated[str, typer.Option(help="The data set whose auxiliary is learned, e.g. fashion-mini.")],
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
    """Train a small style-based prior on auxiliary alone; interrupted, the same command goes on."""
    from sparseguard.core.device import parse_device
    from sparseguard.pipeline.prior_training.train import data_set, style_fit, train_prior

    fit, dataset, place = style_fit(fits or [], images), data_set(data, changes or []), parse_device(device)
    with progress() as shown:
        trained = train_prior(
            out, dataset, fit, name=_named(name, out), classes=_words(classes, "--classes"), seed=seed, device=place,
            progress=shown,
        )  # fmt: skip
    _show_trained(out, trained, as_json)


@prior.command("import")
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
        str | None, typer.Option(metavar="DATA", help="The data set on whose auxiliary it was trained.")
    ] = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Make a prior of one of NVIDIA's networks, or of your own generator."""
    of_official = {"--checkout": checkout}
    of_factory = {"--weights": weights, "--latent": latent, "--output": output}
    if official is not None:
        _only("--official", needed=of_official, refused={"--factory": factory, "--argument": arguments, **of_factory})
    elif factory is not None:
        refused = {"--condition": condition, "--trust-pickle": trust_pickle or None, **of_official}
        _only("--factory", needed=of_factory, refused=refused)
    else:
        raise RecipeError("prior import: give --official FILE.pkl, or --factory PATH.py:FUNCTION.")
    about: dict[str, Any] = {
        "name": _named(name, out),
        "trained_on": trained_on,
        "classes": _words(classes, "--classes"),
        "known": _known(fingerprints_of, changes or []),
    }
    if official is not None and checkout is not None:
        from sparseguard.generators.external.nvidia.import_pickle import import_official

        import_official(
            out, pickle=official, checkout=checkout, trust_pickle=trust_pickle, condition=condition, **about
        )
    elif factory is not None and weights is not None:
        from sparseguard.generators.external.import_module import import_module_prior

        low, high = _numbers(output, float, "--output", 2)
        import_module_prior(
            out, factory=factory, weights=weights, latent=_numbers(latent, int, "--latent"), output=(low, high),
            arguments=_arguments(arguments or []), **about,
        )  # fmt: skip
    _show_imported(out, as_json)


@prior.command()
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
        console().print(f"{count} images of {loaded.card.name}: {out}", soft_wrap=True, markup=False)


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


def _named(name: str | None, out: Path) -> str:
    found = out.resolve().name if name is None else name
    if not found:
        raise RecipeError("--name: must not be empty.")
    return found


def _words(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise RecipeError(f"{option} '{text}': expected names with commas between them.")
    return words


def _numbers(text: str | None, kind: type[int] | type[float], option: str, count: int | None = None) -> list[Any]:
    example = "-1,1" if kind is float else "100,1,1"
    try:
        found = [kind(word) for word in (text or "").split(",")]
    except ValueError:
        found = []
    fits = len(found) == (count or len(found)) and all(math.isfinite(value) for value in found)
    if not found or not fits or (kind is int and min(found) < 1):
        raise RecipeError(f"{option} '{text}': expected numbers with commas between them, such as {option}={example}.")
    return found


def _arguments(given: list[str]) -> dict[str, Any]:
    from sparseguard.pipeline.recipe.overrides import apply_override

    table: dict[str, Any] = {}
    for change in given:
        if "=" not in change:
            raise RecipeError(f"--argument {change}: expected KEY=VALUE, such as width=64.")
        apply_override(table, change)
    return table


def _only(option: str, *, needed: dict[str, Any], refused: dict[str, Any]) -> None:
    """Refuse an import that lacks what ``option`` needs, or is given what belongs to another."""
    if missing := [name for name, value in needed.items() if value is None]:
        raise RecipeError(f"{option} needs {' and '.join(missing)} too.")
    if extra := [name for name, value in refused.items() if value is not None]:
        raise RecipeError(f"{option} and {extra[0]} do not go together.")


def _known(name: str | None, changes: list[str]) -> Any:
    """The fingerprints of a data set's auxiliary; None without a data set."""
    if name is None:
        if changes:
            raise RecipeError(f"--set {changes[0]}: is for --fingerprints-of, which is not given.")
        return None
    from sparseguard.pipeline.prior_training.train import attacker_fingerprints, data_set

    return attacker_fingerprints(data_set(name, changes))


def _show_trained(out: Path, trained: TrainedPrior, as_json: bool) -> None:
    judge = trained.judge
    if as_json:
        measured = {
            "distance": None if judge is None else judge.name,
            "between_halves": None if judge is None else judge.between_halves,
        }
        print_json({"folder": str(out), **_facts(trained.card), **measured, "history": trained.history})
        return
    from rich.table import Table

    named = "distance" if judge is None else judge.name
    table = Table("images shown", named, "augmentation", title=trained.card.name, title_justify="left")
    for verdict in trained.history:
        distance = f"{verdict['distance']:.4g}" if "distance" in verdict else "none: too few images"
        table.add_row(f"{int(verdict['images']):,}", distance, f"{verdict['augmentation']:.2f}")
    if judge is not None:
        table.add_section()
        table.add_row("real to real", f"{judge.between_halves:.4g}", "")
    console().print(table)
    console().print(f"prior: {out}, its samples: {out / 'samples.png'}", soft_wrap=True, markup=False)


def _show_imported(out: Path, as_json: bool) -> None:
    from sparseguard.generators import load_prior
    from sparseguard.generators.sampling import SAMPLES, write_samples

    write_samples(out / SAMPLES, load_prior(out, trust_code=True))
    found = _entry(str(out), out)
    if as_json:
        print_json(found)
        return
    prints = "unknown" if found["fingerprints"] is None else f"{found['fingerprints']:,}"
    shown = f"{out}: {found['name']}, {found['kind']}, {' x '.join(map(str, found['shape']))}, images seen: {prints}"
    console().print(shown, soft_wrap=True, markup=False)
    console().print(f"its samples: {out / SAMPLES}", soft_wrap=True, markup=False)
