"""The attacks on classes of one case: each run once, going on after an interruption with the next class."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseguard.attacks import ClassContext
from sparseguard.core.atomic_io import read_tensors, write_file, write_tensors
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.generators import Prior
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import NamedClassAttack
from sparseguard.pipeline.store import Store
from sparseguard.pipeline.tasks.observe import TapObserver
from sparseguard.types import ClassResult, TargetClasses

TENSORS = [field.name for field in fields(ClassResult) if field.name not in ("diagnostics", "curves")]


@dataclass(frozen=True)
class FolderStorage:
    """Partial results of an attack as files of a folder."""

    folder: Path

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Return what was saved under ``name``, or None."""
        path = self.folder / f"{name}.safetensors"
        return read_tensors(path)[0] if path.exists() else None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Save tensors under ``name``."""
        write_file(self.folder / f"{name}.safetensors", lambda aside: write_tensors(aside, tensors, {}))


def run_class_attack(
    attack: NamedClassAttack,
    goal: TargetClasses,
    *,
    job: PlannedCase,
    observed: TapObserver,
    prior: Prior | None,
    store: Store,
    device: torch.device,
    progress: Progress,
) -> tuple[ClassResult, dict[str, Any]]:
    """Return the result of an attack, of this run or an earlier one, and its facts: seconds.

    Raises:
        TrainingError: when the attack fails numerically.
    """
    key = job.attack_keys[attack.label]
    stored = store.load_class_attack(key)
    if stored is None:
        label = f"{job.threat.name}: {job.defense.label}: {attack.label}"
        context = ClassContext(
            prior=prior,
            seed=derive(purpose="attack", attack=attack.name, threat=job.threat.name, seed=job.seed),
            device=device,
            progress=progress,
            label=label,
            partial_results=FolderStorage(store.partial_folder(key)),
        )
        access = observed.grant_access(attack.knowledge, attack.label, Conditions())
        started = time.monotonic()
        try:
            result = attack.component(access, goal, context)
        except (ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            raise TrainingError(f"{label}: {error}") from error
        run_facts = {
            "notes": dict(result.diagnostics),
            "curves": {name: [float(value) for value in curve] for name, curve in result.curves.items()},
            "seconds": time.monotonic() - started,
        }
        store.save_class_attack(key, {name: getattr(result, name) for name in TENSORS}, run_facts)
        stored = store.load_class_attack(key)
        assert stored is not None
    tensors, facts = stored
    diagnostics: dict[str, float] = facts["notes"]
    curves: dict[str, list[float]] = facts["curves"]
    return ClassResult(**tensors, diagnostics=diagnostics, curves=curves), facts
