"""Recipe of an audit: a data set and a backbone that stand for the images and the model of a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError, TrainingError
from sparseguard.core.staged_model import Blueprint, Shape, Stage
from sparseguard.data import DataSet
from sparseguard.model_audit.hooked_model import LOGITS, TapOutput
from sparseguard.model_audit.validate_inputs import NAME
from sparseguard.pipeline.recipe.entries import NamedComponent, Threat
from sparseguard.pipeline.recipe.loading import parse_recipe
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.targets import Backbone, state_hash
from sparseguard.types import ImageSet, Splits


@final
@settings
class AuditedImages(DataSet):
    """Images in memory, known by the fingerprint of the private ones."""

    name: ClassVar[str] = NAME
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "images of an audit"
    paper_name: ClassVar[str | None] = None
    classes: ClassVar[tuple[str, ...]] = ()
    flips_keep_class: ClassVar[bool] = False
    private_fingerprint: str = ""

    def _read(self) -> Splits:
        raise DataError("the images of an audit are in memory; they cannot be read again.")


@final
@settings
class AuditedModel(Backbone):
    """A user's model, known by the hash of its state and by its output for some images."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "model of an audit"
    state: str = ""
    tap: str = ""
    answers: str = ""

    def blueprint(self, classes: int) -> Blueprint:  # noqa: ARG002
        """Return the one stage of the tap; it exists already, so it cannot be built."""
        return Blueprint(stages=(Stage(self.tap, _refuse),), taps={self.tap: self.tap})


def _refuse(shape: Shape) -> nn.Module:
    raise TrainingError(f"the model of an audit cannot be built anew for inputs of {shape}.")


def build_recipe(
    name: str, attacks: Sequence[Mapping[str, Any]], private: ImageSet, seed: int, threats: tuple[Threat, ...]
) -> Recipe:
    """Return the recipe of an audit: one threat a tap, no defense, the attacks with their settings."""
    recipe = parse_recipe(
        {
            "name": "audit",
            "data": {"name": "fashion-mini"},
            "defenses": [{"name": "none", "label": name}],
            "threats": ["split"],
            "attacks": [dict(attack) for attack in attacks],
            "seeds": [seed],
        }
    )
    data = AuditedImages(private_fingerprint=private.fingerprint())
    return replace(
        recipe,
        name=f"audit of {name}",
        threats=threats,
        data=NamedComponent(name=AuditedImages.name, label=AuditedImages.name, component=data),
    )


def build_threats(name: str, model: nn.Module, taps: Iterable[str], images: Tensor) -> tuple[Threat, ...]:
    """Return a threat a tap; its backbone's settings are fingerprints of the model's weights and outputs."""
    state, logits = state_hash(model), _describe_outputs(model, images)
    threats = []
    for tap in taps:
        answers = logits if tap == LOGITS else f"{_describe_outputs(TapOutput(model, tap), images)}, then {logits}"
        component = AuditedModel(state=state, tap=tap, answers=answers)
        threats.append(
            Threat(name=tap, tap=tap, backbone=NamedComponent(name="given", label=name, component=component))
        )
    return tuple(threats)


@torch.no_grad()
def _describe_outputs(model: nn.Module, images: Tensor) -> str:
    """Return figures that differ between models of equal weights and different code, in digits that rounding keeps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = model(images).double().cpu().flatten()
    weights = torch.arange(len(values), dtype=torch.float64).cos()
    return f"size {values.norm():.3g}, cosine {torch.cosine_similarity(values, weights, dim=0):.2f}"
