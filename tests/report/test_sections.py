"""The list of sections: what a new one needs, and that all forms show it."""

import sys

import pytest
from rich.table import Table

from sparseguard.report import SECTIONS, Kind, Section, render, render_html, to_json, write_page
from support import synthetic_records as made
from support.report_forms import page, terminal


def one_column(words):
    table = Table(words)
    table.add_row("")
    return table


class CaseCount(Section[int]):
    """A section in one file: how many cases there are."""

    kinds = (Kind.REPORT,)
    keys = ("case_counts",)

    def collect(self, group):
        return len(group.records)

    def html(self, data):
        return render_html("<h2>Cases of {{ who }}</h2><p>{{ count }} cases</p>", count=data, who="<all>")

    def terminal(self, data):
        return [one_column(f"{data} cases in all")]

    def summary(self, data):
        return [one_column(f"{data} cases")]

    def json(self, data):
        return {"case_counts": [data]}


@pytest.fixture
def records(monkeypatch):
    monkeypatch.setattr("sparseguard.report.sections.SECTIONS", [*SECTIONS, CaseCount()])
    monkeypatch.setattr("sparseguard.report.json.SECTIONS", [*SECTIONS, CaseCount()])
    return [made.record(), made.record("sca")]


def test_a_line_in_the_list_shows_a_section_everywhere(records, tmp_path):
    assert "<h2>Cases of &lt;all&gt;</h2><p>2 cases</p>" in page(tmp_path, records)
    assert "2 cases in all" in terminal(records)
    assert "2 cases " in terminal(records, full=False)
    assert to_json(records)["case_counts"] == [2]


def test_a_section_that_overrides_nothing_shows_nothing():
    class Empty(Section[int]):
        kinds = (Kind.REPORT,)

        def collect(self, group):
            return 0

    section = Empty()
    assert (section.html(0), section.terminal(0), section.summary(0), section.json(0)) == ("", [], [], {})


def test_keys_of_the_json_report_are_different():
    keys = [key for section in SECTIONS for key in section.keys]
    assert len(set(keys)) == len(keys)


def test_many_variants_make_a_report_in_time_linear_in_their_number(tmp_path):
    def count_calls(variants):
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            calls += event in ("call", "c_call")

        records = [made.record(f"d {at}", shift=-at / variants) for at in range(variants)]
        sys.setprofile(count)
        try:
            to_json(records)
            render(records, full=True)
            write_page(records, {}, tmp_path / "page.html", with_images=False)
        finally:
            sys.setprofile(None)
        return calls

    count_calls(2)
    assert count_calls(32) < 5 * count_calls(8)
