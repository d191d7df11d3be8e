"""Pydantic models of a recipe's entries, made from the tables of components: one model each, told apart by `name`."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.core.docstrings import describe_arguments, first_sentence
from sparseguard.core.errors import SparseguardError
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.combined import SEPARATOR, Combined, split_name
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.json_schema import OPTIONAL, CombinedForm, ShortForm
from sparseguard.pipeline.recipe.threats import THREATS, ThreatModel
from sparseguard.pipeline.recipe.validation.limits import MAX_NAME, check_label
from sparseguard.targets import BACKBONES
from sparseguard.targets.backbones.torchvision import PREFIX

Label = Annotated[
    str, pydantic.AfterValidator(check_label), pydantic.Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME})
]
Sweep = Annotated[
    dict[str, list[Any]] | None,
    pydantic.Field(description="Lists of values: the entry stands for one defense for each combination of them."),
]


class Entry(pydantic.BaseModel):
    """An entry of a recipe that names a component and has its settings."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    _component: Any = pydantic.PrivateAttr(default=None)
    name: str

    @property
    def component(self) -> Any:
        """The component, built and validated."""
        return self._component


class SettingsEntry(Entry):
    """An entry whose fields are the settings of one component, besides those of the entry."""

    component_class: ClassVar[type[Any]]
    settings_names: ClassVar[tuple[str, ...]]

    @pydantic.model_validator(mode="after")
    def _build(self) -> SettingsEntry:
        self._component = build(self.component_class, {name: getattr(self, name) for name in self.settings_names})
        return self


class CombinedEntry(Entry):
    """Several defenses whose names are put together by ``+``, with a table of settings for each."""

    label: Label | None = None
    sweep: Sweep = None

    @pydantic.model_validator(mode="after")
    def _build(self) -> CombinedEntry:
        names = split_name(self.name, DEFENSES) or []
        tables = {info.alias: getattr(self, field) for field, info in type(self).model_fields.items() if info.alias}
        if len(set(names)) < len(names):
            raise _refusal("a defense appears twice")
        for name, table in tables.items():
            if table is not None and name not in names:
                raise _refusal(f"unknown key '{name}'. Settings go into {' and '.join(names)}")
        defenses = {name: tables[name] or build(DEFENSES[name], {}) for name in names}
        self._component = build(Combined, {"defenses": defenses})
        return self


class ThreatEntry(pydantic.BaseModel):
    """A threat to single images."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    tap: Annotated[str, pydantic.Field(description="Layer whose output the attacker sees.")]
    backbone: Annotated[Any, pydantic.Field(description="The undefended model.")]
    classes: ClassVar[tuple[str, ...]] = ()


class ClassThreatEntry(pydantic.BaseModel):
    """A threat to classes."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    tap: Annotated[str, pydantic.Field(description="Layer whose output the attacker sees.")]
    backbone: Annotated[Any, pydantic.Field(description="The undefended model.")]
    classes: Annotated[
        tuple[str, ...], pydantic.Field(description="Attacked classes; empty: those that no prior has seen.")
    ] = ()

    @pydantic.field_validator("classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise _refusal("a class appears twice")
        return classes


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a component from validated values; every error becomes one of validation."""
    try:
        return cls(**values)
    except pydantic.ValidationError:
        raise
    except SparseguardError as error:
        raise _refusal(str(error).rstrip(".")) from None
    except Exception as error:
        raise _refusal(f"cannot be built ({type(error).__name__}: {error})") from None


def data_entry() -> Any:
    """Return the type of the table ``data``."""
    entries = _entries(DATASETS)
    return Annotated[_union(entries), pydantic.Field(discriminator="name"), ShortForm(tuple(DATASETS))]


def backbone_entry() -> Any:
    """Return the type of a threat's backbone."""
    entries = _entries(BACKBONES, label=(Label | None, None))
    return Annotated[
        _union(entries), pydantic.Field(discriminator="name"), ShortForm(tuple(BACKBONES), PREFIX, PREFIX.rstrip(":"))
    ]


def defense_entry() -> Any:
    """Return the type of an entry of the defenses: of one defense, or of several combined."""
    single = _union(_entries(DEFENSES, label=(Label | None, None), sweep=(Sweep, None)))
    tables: Any = {
        f"settings_{number}": (cls | None, pydantic.Field(default=None, alias=name, description=f"Settings of {name}."))
        for number, (name, cls) in enumerate(DEFENSES.items())
    }
    combined = pydantic.create_model(
        "CombinedDefenses", __base__=CombinedEntry, __doc__=CombinedEntry.__doc__, **tables
    )
    return Annotated[
        Annotated[Annotated[single, pydantic.Field(discriminator="name")], pydantic.Tag("single")]
        | Annotated[combined, pydantic.Tag("combined")],
        pydantic.Discriminator(_defense_kind),
        CombinedForm(tuple(DEFENSES), SEPARATOR),
    ]


def attack_entry() -> Any:
    """Return the type of an entry of the attacks: of a feature or of a class inversion."""
    features = _entries(ATTACKS, label=(Label | None, None), conditions=(Conditions, Conditions()))
    classes = [
        model
        for name, cls in CLASS_ATTACKS.items()
        for model in _entries({name: cls}, label=(Label | None, None), **_preset(tuple(cls.presets)))
    ]
    names = (*ATTACKS, *CLASS_ATTACKS)
    return Annotated[_union([*features, *classes]), pydantic.Field(discriminator="name"), ShortForm(names)]


def threat_entry() -> Any:
    """Return the type of an entry of the threats."""
    backbone = backbone_entry()
    models = [_threat_model(name, threat, backbone) for name, threat in THREATS.items()]
    return Annotated[_union(models), pydantic.Field(discriminator="name"), ShortForm(tuple(THREATS))]


def settings_of(cls: type[Any]) -> dict[str, FieldInfo]:
    """Return the settings of a component: its dataclass fields, with pydantic's constraints and a description."""
    fields: Mapping[str, FieldInfo] | None = getattr(cls, "__pydantic_fields__", None)
    if fields is None:
        hints = get_type_hints(cls, include_extras=True)
        fields = {
            field.name: FieldInfo.from_annotated_attribute(hints[field.name], field)
            for field in dataclasses.fields(cls)
        }
    descriptions = describe_arguments(cls)
    described = {}
    for name, info in fields.items():
        described[name] = copy.copy(info)
        described[name].description = info.description or descriptions.get(name)
    return described


def _entries(table: Mapping[str, type[Any]], **extra: Any) -> list[type[Entry]]:
    """Return a model for each component of a table; ``extra`` are fields of entries that are no settings."""
    models: list[type[Entry]] = []
    for name, cls in table.items():
        settings = settings_of(cls)
        fields: Any = {field: (info.annotation, info) for field, info in settings.items()}
        title = "".join(word.capitalize() for word in re.split(r"\W+", name.replace("+", " plus")) if word)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*shadows an attribute in parent", category=UserWarning)
            model = pydantic.create_model(
                f"{title}Entry",
                __base__=SettingsEntry,
                __doc__=first_sentence(cls),
                **{"name": (Literal[name], ...), **extra, **fields},
            )
        model.component_class, model.settings_names = cls, tuple(settings)
        models.append(model)
    return models


def _threat_model(name: str, threat: ThreatModel, backbone: Any) -> Any:
    base, tap = (ThreatEntry, str) if threat.goal == "feature-inversion" else (ClassThreatEntry, Literal[threat.tap])
    title = "".join(word.capitalize() for word in name.split("-"))
    fields: Any = {
        "name": (Literal[name], ...),
        "tap": (tap, _inherited(base, "tap", threat.tap)),
        "backbone": (backbone, _inherited(base, "backbone", threat.backbone)),
    }
    return pydantic.create_model(f"{title}Threat", __base__=base, __doc__=base.__doc__, **fields)


def _inherited(base: type[pydantic.BaseModel], field: str, written_default: str) -> Any:
    """Return a required field that a recipe may leave out: the default is filled in before validation."""
    return pydantic.Field(
        description=base.model_fields[field].description, json_schema_extra={OPTIONAL: True, "default": written_default}
    )


def _preset(presets: tuple[str, ...]) -> dict[str, Any]:
    return {"preset": (Literal[presets] | None, None)} if presets else {}


def _union(models: list[Any]) -> Any:
    return functools.reduce(operator.or_, models)


def _defense_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name in DEFENSES:
        return "single"
    return "combined" if split_name(name, DEFENSES) else "single"


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"reason": reason})
