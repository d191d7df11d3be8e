"""Generate docs/defenses.md from the table of defenses and their docstrings: ``python scripts/defenses_page.py``."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sparseguard.core.config import describe
from sparseguard.defenses import DEFENSES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "defenses.md"
LABELS = ("Source", "Differs", "Limits", "Released code")
HEAD = """# Defenses

`python scripts/defenses_page.py` generates this page from the table of defenses and their docstrings; a test compares.

A defense edits a model's stages, its training, or the released model; [architecture](architecture.md#a-defenses-hooks)
lists the hooks. The same loop trains all defenses on the same images, from the same initial weights where their stages
agree, and the same attacks run against all. The [tap](glossary.md#tap) is the layer whose output the attacker sees.
"Released code" describes the code published with the SCA paper under the same name; n of m is the number of its
scripts that do so.

`+` combines defenses; each has its settings under its own name. A combination that is impossible raises an error with
the reason.

```toml
name = "combined"
defenses = [
  "none",
  { name = "sca+laplace-noise", sca = { lambd = 0.25 }, laplace-noise = { scale = 0.2 } },
  { name = "bido", sweep = { lambda_x = [0.05, 0.1], lambda_y = [0.5, 1.0] } },
]

[data]
name = "fashion-mini"
```

"""


@dataclass
class Text:
    """Sections of a docstring."""

    body: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    labeled: dict[str, str] = field(default_factory=dict)


def render_page() -> str:
    """Return the page."""
    overview = [
        f"| [`{name}`](#{_make_slug(_make_heading(name))}) | {component.summary} |"
        for name, component in DEFENSES.items()
    ]
    table = "\n".join(["| defense | what it is |", "|---|---|", *overview])
    return (
        HEAD
        + table
        + "\n\n"
        + "\n".join(_render_section(name, component) for name, component in DEFENSES.items()).rstrip()
        + "\n"
    )


def parse_docstring(docstring: str) -> Text:
    """Split a docstring into body, arguments and labeled paragraphs."""
    text = Text()
    for paragraph in re.split(r"\n\s*\n(?!\s{4,}\S)", inspect.cleandoc(docstring)):
        label = next((label for label in LABELS if paragraph.startswith(f"{label}:")), None)
        if label:
            line = _join(paragraph.removeprefix(f"{label}:"))
            text.labeled[label] = line[:1].upper() + line[1:]
        elif paragraph.startswith("Args:"):
            text.arguments = dict(_parse_arguments(paragraph))
        elif paragraph.startswith(".. math::"):
            text.body.append("$$" + _join(paragraph.removeprefix(".. math::")) + "$$")
        elif paragraph.startswith("Raises:"):
            text.body.append("Errors: " + re.sub(r"\w+Error: ", "", _join(paragraph.removeprefix("Raises:"))))
        elif not paragraph.startswith("Example:"):
            text.body.append(_to_markdown(paragraph))
    return text


def _render_section(name: str, component: type[Any]) -> str:
    text = parse_docstring(component.__doc__ or "")
    default = describe(component())
    lines = [f"## {_make_heading(name)}", "", *(f"{paragraph}\n" for paragraph in text.body)]
    if default:
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{entry.name}` | `{json.dumps(default[entry.name])}` | {text.arguments[entry.name]} |"
            for entry in fields(component)
        ]
        lines.append("")
    lines += [f"**{label}.** {text.labeled[label]}\n" for label in LABELS if label in text.labeled]
    return "\n".join(lines)


def _parse_arguments(paragraph: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", paragraph, re.M):
        yield match[1], _join(match[2]).replace("|", "\\|")


def _join(text: str) -> str:
    return _to_markdown(" ".join(text.split()))


def _to_markdown(text: str) -> str:
    """Turn the docstrings' reStructuredText into Markdown."""
    return re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", text).replace(":math:", "")


def _make_heading(name: str) -> str:
    """Return the name, in words too where another heading would have the same anchor."""
    return name if "+" not in name else f"{name} ({name.replace('+', ' plus')})"


def _make_slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    print(f"wrote {PAGE}")
