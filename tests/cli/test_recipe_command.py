"""``sparseguard recipe``, and notices about old words."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from sparseguard.cli.notices import print_notices
from sparseguard.core.errors import DeprecatedWordWarning
from sparseguard.pipeline.recipe.validation.document import recipe_schema
from support.command_line import in_process


def test_schema_prints_the_schema_of_recipes() -> None:
    done = in_process("recipe", "schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == recipe_schema()


@pytest.mark.filterwarnings("default::sparseguard.core.errors.DeprecatedWordWarning")
def test_an_old_word_is_one_line_of_notice(tmp_path: Path) -> None:
    recipe = tmp_path / "old.toml"
    recipe.write_text('name = "old"\ndefenses = ["scaa"]\n[data]\nname = "fashion-mini"\n[fit]\nepochs = 3\n')
    done = in_process("run", recipe)
    assert done.returncode == 2
    notice, error = done.stderr.splitlines()
    assert notice == "sparseguard: recipe: 'fit' is now 'training'. The next release no longer reads the old words."
    assert error.startswith("sparseguard: [[defenses]]: unknown name 'scaa'")


def test_other_warnings_are_shown_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    def warn() -> None:
        with print_notices():
            warnings.simplefilter("always")
            warnings.warn("old word", DeprecatedWordWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        warn()
    assert capsys.readouterr().err == "sparseguard: old word\n"
