"""The tables of the terminal: their words, and that they fit in 100 columns."""

import pytest

from sparseguard.record import Flag
from sparseguard.record.claims import find_claim
from sparseguard.report import render
from support import class_records as classes
from support import full_records as full
from support import many_defenses as many
from support import synthetic_records as made
from support.report_forms import terminal

LONG = "sparse-standard first_layer_with_a_long_setting=0.25"


def long_names():
    flags = [Flag(name="attacker-below-the-best-floor", message="m"), Flag(name="b", message="m", expected="e")]
    claim = find_claim("split", "celeba", "none", None)
    return [*(made.record(LONG, seed=seed, flags=flags, claim=claim) for seed in (0, 1)), made.failed()]


RECORDS = {
    "long names": long_names,
    "everything": lambda: [full.record(), full.record("sca", shift=4.0)],
    "classes": lambda: [classes.record(), classes.record("negative-label-smoothing"), classes.failed("gone")],
    "class seeds": lambda: [classes.record(seed=seed) for seed in (0, 1)],
    "families": lambda: [*many.grid(3, 2), many.record("a-family-with-a-very-long-name-of-its-own", lost=90)],
    "no test split": lambda: [made.record(attacks=made.attacks(parts={"private": 0.0}))],
}


@pytest.mark.parametrize("full_tables", [False, True], ids=["compact", "full"])
@pytest.mark.parametrize("name", RECORDS)
def test_tables_and_their_words(snapshot, name, full_tables):
    records = RECORDS[name]()
    pictures = {one.case.slug: full.pictures() for one in records} if name == "everything" else {}
    text = terminal(records, pictures, full=full_tables)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert text == snapshot


def test_the_terminal_shows_one_compact_table_a_threat():
    records = [made.record(threat=threat) for threat in ("split", "end-to-end")] + [classes.record()]
    assert len(render(records)) == 3
    assert len(render(records, full=True)) > 3


def test_ten_classes_fit_in_the_terminal_and_more_have_no_table():
    for count, tables in ((10, 5), (11, 4)):
        names = [f"a long class {at}" for at in range(count)]
        facts = dict.fromkeys(names, classes.attack("a").classes["Bag"])
        attack = classes.attack("a", given=classes.prior(), classes=facts)
        records = [classes.record(classes=names, attacks=[attack])]
        assert len(render(records, full=True)) == tables
        lines = terminal(records)
        assert max(map(len, lines.splitlines())) <= 100
        assert ("(0.900)" in lines) == (count == 10)


@pytest.mark.parametrize("full_tables", [False, True])
def test_markup_in_a_name_is_shown_not_obeyed(full_tables):
    assert "[red]x[/red]" in terminal([made.record("[red]x[/red]")], full=full_tables)
    assert "[/nope]" in terminal([classes.record("[/nope]")], full=full_tables)
