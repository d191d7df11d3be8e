"""Layer-wise reconstruction: the best reconstruction known at every layer between the image and the tap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseguard.bounds._destandardize import PixelRange
from sparseguard.bounds._layers import Activations, Layer, compose_layers, is_lossless
from sparseguard.bounds._sparse_inversion_model import choose_stable_steps, codes_images, invert_released_codes
from sparseguard.bounds.base import AuxiliaryImages, Decode, mean_psnr
from sparseguard.bounds.null_space import AffineMap, fit_affine_map, split_null_space
from sparseguard.numerics.psnr import PSNR_CAP
from sparseguard.sparse import SparseCoding, standardize
from sparseguard.types import Images

RISE = 0.1
"""Decibels by which a layer must lie above the one before it to count as a rise."""

FITTED = 128
"""Auxiliary images on which mean and contrast of the inversion are learned."""


@dataclass(frozen=True, kw_only=True)
class LayerReconstruction:
    """The best reconstruction known at one layer.

    Args:
        layer: the layer's name.
        psnr: mean over the evaluated images, in dB.
        method: of that reconstruction: ``identity``, ``affine``, ``decode``, ``range``, ``inversion``, or that of the
            layer before, where the one between loses nothing.
        methods: the PSNR of each method tried.
    """

    layer: str
    psnr: float
    method: str
    methods: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LayerwiseReconstruction:
    """The best reconstructions from the image to the tap.

    A function of a layer's output is a function of its input. So the true optimum falls or stays along the layers, and
    a PSNR above that of the layer before shows that the attackers at the earlier layer are too weak.

    Args:
        layers: in order, the image first.
    """

    layers: tuple[LayerReconstruction, ...]

    @property
    def rises(self) -> dict[str, float]:
        """By how many dB a layer lies above the one before it, where it is more than `RISE`."""
        pairs = zip(self.layers, self.layers[1:], strict=False)
        return {after.layer: after.psnr - before.psnr for before, after in pairs if after.psnr > before.psnr + RISE}

    @property
    def corrected(self) -> dict[str, float]:
        """The largest PSNR at each layer or a later one, in dB: known to be possible there."""
        best, corrected = float("-inf"), dict[str, float]()
        for layer in reversed(self.layers):
            best = max(best, layer.psnr)
            corrected[layer.layer] = best
        return dict(reversed(corrected.items()))


class LayerwiseSearch:
    """Search for each layer's best reconstruction, layer after layer.

    After a layer that loses nothing (batch normalization) the reconstruction before it still counts.

    Args:
        auxiliary: the attacker's images.
        private: the evaluated images; never given to a decoder, but they decide which attacker counts at a layer.
        decode: the learned attacker, such as ridge regression.
        device: where the model is.

    Attributes:
        layers: one a layer added, the image first.
        affine_part: the last layer up to which the network is affine, and its map; None where there is none.
    """

    def __init__(self, auxiliary: AuxiliaryImages, private: Images, decode: Decode, device: torch.device) -> None:
        self._auxiliary, self._private, self._decode, self._device = auxiliary, private, decode, device
        self._modules = list[Layer]()
        self.affine_part: tuple[str, AffineMap] | None = None
        self._nonlinear = False
        self.layers = [
            LayerReconstruction(layer="image", psnr=PSNR_CAP, method="identity", methods={"identity": PSNR_CAP})
        ]

    def result(self) -> LayerwiseReconstruction:
        """Return the reconstructions of the layers added so far."""
        return LayerwiseReconstruction(layers=tuple(self.layers))

    def add_layer(self, activations: Activations) -> None:
        """Try all methods on a layer's output, and on its standardized input if it is a sparse layer with one."""
        module, name = activations.layer.module, activations.layer.name
        self._modules.append(activations.layer)
        methods = dict[str, float]()
        if isinstance(module, SparseCoding):
            first = codes_images(module, activations.auxiliary_in, self._auxiliary)
            if first:
                self._add(f"{name}.standardized", self._from_standardized(activations))
            if first and module.penalty == "l1":
                methods["inversion"] = self._by_inversion(activations, module)
        mapping = self._extend_affine_part(name)
        if mapping is not None:
            split = split_null_space(mapping, self._auxiliary, self._private)
            methods["affine"] = max(split.psnr(self._private))
        if is_lossless(module):
            methods[self.layers[-1].method] = self.layers[-1].psnr
        elif mapping is None or not mapping.complete:
            methods["decode"] = self._by_decoder(activations.auxiliary_out, activations.private_out)
        self._add(name, methods)

    def _add(self, layer: str, methods: dict[str, float]) -> None:
        best = max(methods, key=lambda name: methods[name])
        self.layers.append(LayerReconstruction(layer=layer, psnr=methods[best], method=best, methods=methods))

    def _from_standardized(self, activations: Activations) -> dict[str, float]:
        auxiliary, private = standardize(activations.auxiliary_in), standardize(activations.private_in)
        return {
            "decode": self._by_decoder(auxiliary, private),
            "range": mean_psnr(PixelRange.fit(auxiliary, self._auxiliary)(private), self._private),
        }

    def _by_inversion(self, activations: Activations, layer: SparseCoding) -> float:
        own, device = self._auxiliary[:FITTED], self._device
        inputs, code = activations.auxiliary_in[:FITTED].to(device), activations.auxiliary_out[:FITTED].to(device)
        steps = choose_stable_steps(layer, inputs, code)
        auxiliary = invert_released_codes(layer, inputs, code, steps).inversion.projection
        private = invert_released_codes(
            layer, activations.private_in.to(device), activations.private_out.to(device), steps
        )
        estimate = PixelRange.fit(auxiliary.cpu(), own)
        return mean_psnr(estimate(private.inversion.projection.cpu()), self._private)

    def _extend_affine_part(self, name: str) -> AffineMap | None:
        """Return the layers so far as a matrix; None if they are not affine."""
        mapping = None
        if not self._nonlinear:
            mapping = fit_affine_map(compose_layers(self._modules, self._device), self._auxiliary[:FITTED])
        self._nonlinear = mapping is None
        if mapping is not None:
            self.affine_part = name, mapping
        return mapping

    def _by_decoder(self, auxiliary: Tensor, private: Tensor) -> float:
        images = self._decode(auxiliary.flatten(1), self._auxiliary, private.flatten(1))
        return mean_psnr(images, self._private)
