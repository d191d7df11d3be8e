"""Writes docs/defenses.md from the table of defenses and their docstrings: ``python scripts/defenses_page.py``."""

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

Made from the table of defenses and their docstrings by `python scripts/defenses_page.py`; a test compares.

A defense edits a model's stages, or how it is trained, or what is released; the hooks are in
[architecture](architecture.md#a-defenses-hooks). All are trained by the same loop on the same images, start from the
same weights where their stages agree, and are attacked by the same attackers. "The tap" is the tensor that leaks.
"Released code" says what the code published with the SCA paper does under the same name; how many of its scripts do
so is given as n of m.

Defenses are put together by `+`; each has its settings under its own name. What cannot be combined is refused with
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
    """A docstring's parts."""

    body: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    labelled: dict[str, str] = field(default_factory=dict)


def page() -> str:
    """Return the page."""
    overview = [f"| [`{name}`](#{_slug(_heading(name))}) | {piece.summary} |" for name, piece in DEFENSES.items()]
    table = "\n".join(["| defense | what it is |", "|---|---|", *overview])
    return HEAD + table + "\n\n" + "\n".join(_section(name, piece) for name, piece in DEFENSES.items()).rstrip() + "\n"


def parsed(docstring: str) -> Text:
    """Part a docstring into body, arguments and labelled paragraphs."""
    found = Text()
    for paragraph in re.split(r"\n\s*\n(?!\s{4,}\S)", inspect.cleandoc(docstring)):
        label = next((label for label in LABELS if paragraph.startswith(f"{label}:")), None)
        if label:
            text = _joined(paragraph.removeprefix(f"{label}:"))
            found.labelled[label] = text[:1].upper() + text[1:]
        elif paragraph.startswith("Args:"):
            found.arguments = dict(_arguments(paragraph))
        elif paragraph.startswith(".. math::"):
            found.body.append("$$" + _joined(paragraph.removeprefix(".. math::")) + "$$")
        elif paragraph.startswith("Raises:"):
            found.body.append("Refused: " + re.sub(r"\w+Error: ", "", _joined(paragraph.removeprefix("Raises:"))))
        elif not paragraph.startswith("Example:"):
            found.body.append(_plain(paragraph))
    return found


def _section(name: str, piece: type[Any]) -> str:
    text = parsed(piece.__doc__ or "")
    default = describe(piece())
    lines = [f"## {_heading(name)}", "", *(f"{paragraph}\n" for paragraph in text.body)]
    if default:
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{one.name}` | `{json.dumps(default[one.name])}` | {text.arguments[one.name]} |"
            for one in fields(piece)
        ]
        lines.append("")
    lines += [f"**{label}.** {text.labelled[label]}\n" for label in LABELS if label in text.labelled]
    return "\n".join(lines)


def _arguments(paragraph: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", paragraph, re.M):
        yield match[1], _joined(match[2]).replace("|", "\\|")


def _joined(text: str) -> str:
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """Turn the docstrings' reStructuredText into Markdown."""
    return re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", text).replace(":math:", "")


def _heading(name: str) -> str:
    """Return the name, in words too where another heading would have the same anchor."""
    return name if "+" not in name else f"{name} ({name.replace('+', ' plus')})"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
