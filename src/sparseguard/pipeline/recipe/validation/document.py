"""Recipe as one pydantic model, made from the tables of components, and its JSON schema."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import pydantic
from pydantic_core import PydanticCustomError

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.pipeline.recipe.entries import ExpectedFlag
from sparseguard.pipeline.recipe.json_schema import OPTIONAL, relax
from sparseguard.pipeline.recipe.scoring import Scoring
from sparseguard.pipeline.recipe.threats import THREATS
from sparseguard.pipeline.recipe.validation import models
from sparseguard.pipeline.recipe.validation.limits import MAX_ENTRIES, MAX_NAME, check_name
from sparseguard.targets import BACKBONES, Fit

Name = Annotated[
    str,
    pydantic.AfterValidator(check_name),
    pydantic.Field(
        description="Name of the recipe; records and the run folder have it.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_NAME, "pattern": r"^[^/\\]+$"},
    ),
]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


def _check_distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise PydanticCustomError("refused", "a seed appears twice")
    return seeds


Seeds = Annotated[
    tuple[Seed, ...],
    pydantic.Field(
        min_length=1,
        max_length=MAX_ENTRIES,
        description="Distinct whole numbers from 0; each case is run with each.",
        json_schema_extra={"uniqueItems": True},
    ),
    pydantic.AfterValidator(_check_distinct),
]


class Document(pydantic.BaseModel):
    """A grid of experiments: every defense x every threat x every seed, each attacked by every attack."""

    model_config = pydantic.ConfigDict(extra="forbid", title="sparseguard recipe", frozen=True)
    name: Name
    description: Annotated[str, pydantic.Field(description="One line.")] = ""
    seeds: Seeds = (0,)
    data: Any
    training: Annotated[Fit, pydantic.Field(description="Training of every target.")] = Fit()
    threats: Any
    defenses: Any
    attacks: Any
    scoring: Annotated[Scoring, pydantic.Field(description="Further scores.")] = Scoring()
    expected_flags: Annotated[
        tuple[ExpectedFlag, ...],
        pydantic.Field(max_length=MAX_ENTRIES, description="Flags of the checks that the author expects."),
    ] = ()


def document_model() -> type[Document]:
    """Return the model of recipes that name the components in the tables now."""
    tables = (DATASETS, BACKBONES, DEFENSES, ATTACKS, CLASS_ATTACKS)
    return _document_model(tuple(tuple(table.items()) for table in tables), tuple(THREATS.items()))


@functools.lru_cache(maxsize=4)
def _document_model(*_: Any) -> type[Document]:
    fields: Any = {
        "data": (models.data_entry(), pydantic.Field(description="The data set and its settings.")),
        "threats": (_list(models.threat_entry()), _optional("Threat models.")),
        "defenses": (
            _list(models.defense_entry()),
            pydantic.Field(min_length=1, max_length=MAX_ENTRIES, description="Defenses of the targets."),
        ),
        "attacks": (_list(models.attack_entry()), _optional("Attacks on every target that their threat fits.")),
    }
    return pydantic.create_model("Recipe", __base__=Document, __doc__=Document.__doc__, **fields)


def _list(entry: Any) -> Any:
    return tuple[entry, ...]


def _optional(description: str) -> Any:
    return pydantic.Field(
        min_length=1, max_length=MAX_ENTRIES, description=description, json_schema_extra={OPTIONAL: True}
    )


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes.

    Example:
        >>> sorted(recipe_schema()["required"])
        ['data', 'defenses', 'name']
    """
    schema = document_model().model_json_schema()
    relax(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
