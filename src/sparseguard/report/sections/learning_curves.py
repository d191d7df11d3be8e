"""Section with curves of training and of searches."""

from __future__ import annotations

from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.charts.learning_curves import draw_curves
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section

TEMPLATE = """\
{% import "macros.html.j2" as draw %}
{% for chart in charts %}
<h3>{{ chart.heading }}</h3>
<p class="soft">{{ chart.meaning }} Upright: {{ chart.y_words }}; across: {{ chart.x_words }}. One axis for all.</p>
{{ draw.curves(chart) }}
{% endfor %}
"""


class LearningCurves(Section[RecordGroup]):
    """Curves of attacks' training, of searches and of targets' training."""

    kinds = (Kind.FEATURE_INVERSION,)

    def collect(self, group: RecordGroup) -> RecordGroup | None:
        """Return the group; the curves are in its records."""
        return group

    def html(self, data: RecordGroup) -> str:
        """Return the charts that have curves."""
        return render_html(TEMPLATE, charts=draw_curves(data.records))
