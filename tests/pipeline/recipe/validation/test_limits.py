"""Limits of recipes: whatever a file or an override holds, it is parsed or refused, with little memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparseguard import load_recipe, parse_recipe
from sparseguard.core.errors import RecipeError
from sparseguard.pipeline.recipe.validation.limits import (
    MAX_CASES,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_ENTRIES,
    MAX_SEGMENTS,
    read_toml,
)

DANGEROUS = {
    "a file of more than 1 MiB": 'description = "' + "x" * (1 << 20) + '"',
    "a dotted key of 200 kB": ".".join(["a"] * 100_000) + " = 1",
    "a dotted key of quoted parts": ".".join(['"a"'] * 100_000) + " = 1",
    "a dotted key with spaces": " . ".join(["a"] * 50_000) + " = 1",
    "a table's long name": "[" + ".".join(["a"] * 100_000) + "]",
    "5,000 digits": "seeds = [" + "1" * 5000 + "]",
    "5,000 digits in groups": "seeds = [" + "_".join(["1"] * 5000) + "]",
    "900 brackets": "seeds = " + "[" * 900,
    "900 closed brackets": "seeds = " + "[" * 900 + "]" * 900,
    "100,000 inline tables": "data = " + "{a=" * 100_000,
    "strings left open": '"""' + '\\"""' * 250_000,
    "a string left open": "name = '" + "x" * 1_000_000,
    "a million brackets": "[" * (1 << 20),
    "a long key": "a" * 500_000 + " = 1",
    "a long name": 'name = "' + "x" * 500_000 + '"',
    "many tables": "".join(f"[a{number}]\n" for number in range(80_000)),
    "hexadecimal digits": "seeds = [0x" + "f" * 1_000_000 + "]",
    "many seeds": "seeds = [" + ",".join(map(str, range(150_000))) + "]",
}
SCRIPT = """
import resource, sys
from pathlib import Path
from sparseguard import load_recipe
from sparseguard.core.errors import RecipeError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
for path in sorted(Path(sys.argv[1]).glob("*.toml")):
    text = path.read_text()
    for change in (None, text if len(text) < 1 << 20 else None, f"seeds={text}"):
        try:
            load_recipe(path if change is None else "demo", [] if change is None else [change])
        except RecipeError as error:
            assert 0 < len(str(error)) < 2000, (path.name, len(str(error)))
            print(path.stem, str(error)[:150].replace("\\n", " "), sep=": ")
        else:
            assert change is not None, path.name
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its own memory from /proc")
def test_no_file_or_override_needs_more_than_a_gibibyte(tmp_path: Path) -> None:
    for name, text in DANGEROUS.items():
        (tmp_path / f"{name}.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(f"{name}: " in done.stdout for name in DANGEROUS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join(["a"] * (MAX_SEGMENTS + 1)) + " = 1", "more than 8 parts"),
        ("a = " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 16"),
        ("a = " + "1" * (MAX_DIGITS + 1), "more than 40 digits"),
        ("a = [", "not valid TOML"),
    ],
)
def test_text_beyond_a_limit_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_toml(text, "recipe.toml")


def test_limits_do_not_count_what_is_quoted_or_a_comment() -> None:
    long = "a.b.c.d.e.f.g.h.i.j.k[[[[[[[[[[[[[[[[[[[[1" + "2" * 50
    text = f"# {long}\na = '{long}'\nb = \"{long}\\\"{long}\"\nc = '''\n{long}'{long}'''\nd = \"\"\"{long}\"\"\"\n"
    assert list(read_toml(text, "recipe.toml")) == ["a", "b", "c", "d"]
    assert read_toml(".".join("a" * MAX_SEGMENTS) + " = 1", "x")
    assert read_toml("a = " + "1" * MAX_DIGITS, "x")
    assert read_toml("a = " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../x"}, "not a path"),
        ({"name": "/x"}, "not a path"),
        ({"name": "a\\b"}, "not a path"),
        ({"name": "."}, "not a path"),
        ({"name": ".."}, "not a path"),
        ({"name": "a\0b"}, "NUL"),
        ({"name": "a\x1b[31mb"}, "control characters"),
        ({"name": "a\nb"}, "control characters"),
        ({"name": " "}, "must not be empty"),
        ({"name": "x" * 161}, "at most 160 characters"),
        ({"name": 3}, "valid string"),
        ({"defenses": [{"name": "none", "label": "a\x07"}]}, "control characters"),
        ({"description": "x" * 5000}, "5,000 characters"),
        ({"seeds": [2**70]}, "64 bits"),
        ({"seeds": list(range(MAX_ENTRIES + 1))}, "1,001 entries"),
        ({"threats": [{"name": ["a"]}]}, "name must be a string"),
        ({"threats": [{"name": {}}]}, "name must be a string"),
        ({"attacks": [{"name": 1.5}]}, "name must be a string"),
        ({"data": {"name": []}}, "name must be a string"),
        ({"defenses": [{"name": "sca", "sweep": {"lambd": [0.1] * 40, "rate": [0.1] * 40}}]}, "1600 combinations"),
        ({"defenses": [{"name": "sca", "sweep": {"rate": [n / 999 for n in range(900)]}}] * 2}, "more than 1,000"),
        ({"defenses": ["none"] * 900 + [{"name": "sca", "sweep": {"a.b.c": [1]}}]}, "unknown key"),
        ({"seeds": list(range(1000)), "defenses": [f"{n}" for n in range(20)]}, "unknown name"),
    ],
)
def test_values_beyond_a_limit_are_refused(tiny: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**tiny, **change})


def test_the_number_of_cases_is_limited(tiny: dict[str, Any]) -> None:
    sweep = {"name": "gaussian-noise", "sweep": {"sigma": [number / 100 for number in range(1, 12)]}}
    with pytest.raises(RecipeError, match=f"has 11,000 cases, more than {MAX_CASES:,}"):
        parse_recipe({**tiny, "seeds": list(range(1000)), "defenses": [sweep]})


def test_a_value_that_holds_itself_is_refused(tiny: dict[str, Any]) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecipeError, match="nested deeper"):
        parse_recipe({**tiny, "data": endless})


WORDS = ["none", "sca", "sca+cem", "split", "ridge", "plug-and-play", "fashion-mini", "torchvision:x", "name", "a.b"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
    | st.dates()
    | st.times()
)
KEYS = st.sampled_from(
    ["name", "label", "sweep", "conditions", "preset", "tap", "backbone", "classes", "lambd", "sca", "steps", "prior"]
) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
PLACES = st.sampled_from(
    ["name", "description", "seeds", "data", "training", "threats", "defenses", "attacks", "scoring", "expected_flags"]
)
ENTRIES = st.dictionaries(KEYS, VALUES, max_size=4).flatmap(
    lambda entry: st.sampled_from(WORDS).map(lambda name: {**entry, "name": name})
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(PLACES, VALUES | st.lists(ENTRIES, max_size=2) | ENTRIES, max_size=3))
def test_any_value_anywhere_is_parsed_or_refused(tiny: dict[str, Any], change: dict[str, Any]) -> None:
    with contextlib.suppress(RecipeError):
        parse_recipe({**tiny, **change})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.lists(PLACES | KEYS | st.sampled_from(WORDS), max_size=5), value=st.text(max_size=20))
def test_any_override_is_applied_or_refused(tiny_file: Path, key: list[str], value: str) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(tiny_file, [f"{'.'.join(key)}={value}"])
