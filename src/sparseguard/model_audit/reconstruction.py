"""Reconstruction of images from a model's features with one attack, without a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.attacks import ATTACKS, Attack, AttackContext
from sparseguard.attacks.access import ModelAccess
from sparseguard.core.config import parse_named
from sparseguard.core.device import parse_device
from sparseguard.core.progress import Progress, Silent
from sparseguard.core.seeding import derive
from sparseguard.generators import load_prior
from sparseguard.metrics import psnr, ssim
from sparseguard.model_audit.accept_images import ImageSource, require_labels, share_classes, to_image_set
from sparseguard.model_audit.hooked_model import HookedModel, check_taps, copy_frozen
from sparseguard.model_audit.validate_inputs import adapt_precision, check_match, divide
from sparseguard.types import FLOORS, AttackInput, AuxiliaryData, Images, ImageSet, Knowledge

SHARES = {"auxiliary": 85, "auxiliary_val": 15}
"""Per cent of the auxiliary images that an attack learns from, and that it is tuned on."""

PROBES = 16
"""Images that a model runs on before the attack."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Result of one attack.

    Args:
        images: the reconstructions ``(n, c, h, w)``, float32 in [0, 1], in the order of the originals.
        psnr: of each image ``(n,)``, in dB, at most 100; higher is closer to the original.
        ssim: of each image ``(n,)``, at most 1; higher is closer.
        diagnostics: figures of the attack, such as its chosen regularization.
        knowledge: what the attack has besides auxiliary images: ``black-box``, ``gray-box``, ``white-box`` ...
    """

    images: Images
    psnr: Float[Tensor, " n"]
    ssim: Float[Tensor, " n"]
    diagnostics: Mapping[str, float]
    knowledge: str

    def __str__(self) -> str:
        """Summarize the scores in one line."""
        return (
            f"{len(self.images)} images, {self.knowledge}: PSNR {self.psnr.mean():.2f} dB, "
            f"SSIM {self.ssim.mean():.3f} (means)"
        )


def reconstruct(
    model: nn.Module,
    images: ImageSource,
    *,
    auxiliary: ImageSource,
    tap: str,
    attack: str = "ridge",
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Reconstruction:
    """Reconstruct images from the features of a tap with one attack.

    The model is copied and stays unchanged. The attack sees the features of ``images`` at the tap and has
    ``auxiliary`` as its own images: it learns from 85 % of them and is tuned on the rest. No control and no floor is
    run; `audit` runs them too and records the result.

    Args:
        model: from images ``(n, c, h, w)`` in [0, 1], its normalization inside.
        images: to reconstruct: an `ImageSet`, a `Dataset`, a `DataLoader`, a Hugging Face data set, an array or tensor
            ``(n, c, h, w)``, a pair of them with labels, or a folder.
        auxiliary: images of the same kind that the attacker has, in any of these forms; some hundreds or more.
        tap: name of the module whose output the attacker sees, as in ``model.named_modules()``, or ``logits``.
        attack: its name in `ATTACKS`.
        device: ``auto``, ``cpu``, ``cuda`` ...
        seed: of the attack.
        progress: reports the progress.
        settings: of the attack, e.g. ``copies=1`` for ``ridge``.

    Raises:
        RecipeError: for an unknown tap, attack or setting.
        DataError: when images do not fit the model or each other.
        TrainingError: when the attack fails.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import sparseguard as sg
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> images = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> result = sg.reconstruct(model, images[:10], auxiliary=images[10:], tap="1", attack="ridge", copies=1)
        >>> result.images.shape, result.psnr.shape, result.knowledge
        (torch.Size([10, 1, 8, 8]), torch.Size([10]), 'black-box')
    """
    target_device = parse_device(device)
    component: Attack = parse_named({"name": attack, **settings}, ATTACKS, "attack")[1]
    targets, known = to_image_set(images, "images"), to_image_set(auxiliary, "auxiliary")
    if component.knowledge == Knowledge.LABEL:
        require_labels(targets, "images")
        require_labels(known, "auxiliary")
    targets, known = share_classes(targets, known)
    check_match(targets, known, "auxiliary")
    subsets = divide(known, SHARES, "auxiliary")
    probes = known.batch(torch.arange(min(PROBES, len(known)))).to(target_device)
    frozen = adapt_precision(copy_frozen(model).to(target_device), probes)
    hooked = HookedModel(frozen, tap, check_taps(frozen, [tap], probes)[tap]).eval()

    def access(knowledge: Knowledge, purpose: str) -> ModelAccess:
        return ModelAccess(
            hooked,
            tap=tap,
            stage=next(iter(hooked.stages)),
            knowledge=knowledge,
            seed=derive(purpose=purpose, tap=tap, seed=seed),
            device=target_device,
            released=hooked,
        )

    features = access(Knowledge.BLACK_BOX, "features")
    inputs = {
        split: _attack_input(subset, None if component.knowledge in FLOORS else features, component.knowledge)
        for split, subset in {"private": targets, "auxiliary_val": subsets["auxiliary_val"]}.items()
    }
    source = component.prior_source()
    context = AttackContext(
        auxiliary=AuxiliaryData(train=subsets["auxiliary"], val=subsets["auxiliary_val"]),
        seed=derive(purpose="attack", attack=attack, tap=tap, seed=seed),
        device=target_device,
        progress=progress or Silent(),
        label=attack,
        prior=load_prior(source, trust_code=component.trusts_prior()) if source else None,
    )
    result, _ = component(access(component.knowledge, attack), inputs, context)
    reconstructions, originals = result.reconstructions["private"], targets.images
    return Reconstruction(
        images=reconstructions,
        psnr=psnr(reconstructions, originals),
        ssim=ssim(reconstructions, originals),
        diagnostics=dict(result.diagnostics),
        knowledge=component.knowledge.value,
    )


def _attack_input(images: ImageSet, access: ModelAccess | None, knowledge: Knowledge) -> AttackInput:
    return AttackInput(
        count=len(images),
        observation=None if access is None else access.observe(images),
        labels=images.labels if knowledge == Knowledge.LABEL else None,
    )
