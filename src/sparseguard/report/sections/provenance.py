"""Section with keys, hosts and versions of all cases."""

from __future__ import annotations

from dataclasses import dataclass

from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import flatten, render_html
from sparseguard.report.section import Section

TEMPLATE = """\
<h2 id="provenance">Provenance</h2>
{% if shared %}
<h3>The same for all cases</h3>
<div class="facts">{% for name, value in shared.items() %}<span><span class="soft">{{ name }}</span> {{ value }}</span>{% endfor %}</div>
{% endif %}
<h3>Case by case</h3>
<div class="scroll"><table class="wide">
<thead><tr><th>case</th><th class="words">key</th><th class="words">details</th></tr></thead>
<tbody>
{% for case in cases %}
<tr><td>{{ case.slug }}</td><td class="words"><code>{{ case.key }}</code></td><td class="words">{% for name, value in case.facts.items() if name not in shared %}<span class="soft">{{ name }}</span> {{ value }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
"""  # noqa: E501


@dataclass(frozen=True)
class CaseProvenance:
    """A case with its key, and times, host and versions by name."""

    slug: str
    key: str
    facts: dict[str, str]


class Provenance(Section[list[CaseProvenance]]):
    """Where and when the cases were run."""

    kinds = (Kind.REPORT,)

    def collect(self, group: RecordGroup) -> list[CaseProvenance] | None:
        """Return the provenance of every case."""
        return [
            CaseProvenance(record.case.slug, record.key, flatten(record.provenance.model_dump(exclude_defaults=True)))
            for record in group.records
        ]

    def html(self, data: list[CaseProvenance]) -> str:
        """Return what all cases share, and a table of the rest."""
        shared = dict(data[0].facts) if data else {}
        for case in data[1:]:
            shared = {name: value for name, value in shared.items() if case.facts.get(name) == value}
        return render_html(TEMPLATE, cases=data, shared=shared)
