"""Promises about all of fashion-mini."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparseguard import parse_recipe, run


@pytest.mark.slow
def test_the_undefended_split_tap_gives_its_images_away(tmp_path: Path) -> None:
    recipe = parse_recipe(
        {
            "name": "full",
            "data": {"name": "fashion-mini"},
            "defenses": ["none", "standardize-only"],
            "threats": [{"name": "split", "backbone": "linear"}],
            "attacks": ["mean-image", "class-mean", "nearest-neighbor", "ridge", "local-ridge", "ridge-conv"],
        }
    )
    none, standardized = run(recipe, tmp_path).records
    assert none.feature_inversion.choice("black-box", 1, "psnr").scores["private"]["psnr"].mean >= 26.0
    for record in (none, standardized):
        chosen = record.feature_inversion.choice("black-box", 1, "psnr")
        ridge = record.feature_inversion.attack("ridge")
        assert chosen.scores["private"]["psnr"].mean >= ridge.scores["private"]["psnr"].mean
        assert record.flags == []
