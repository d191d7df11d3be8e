"""Descriptions of arguments, read from Google-style docstrings."""

from __future__ import annotations

import inspect
import re

_ARGUMENT = re.compile(r"(\w+): (.*)")
_SECTION = re.compile(r"Args:\n((?:    .*\n?|\n)*)")


def describe_arguments(cls: type) -> dict[str, str]:
    """Return the description of each argument in the ``Args`` of a class and its bases, as one line each.

    Example:
        >>> class Noise:
        ...     '''Noise.
        ...
        ...     Args:
        ...         sigma: standard deviation,
        ...             in units of the pixels.
        ...     '''
        >>> describe_arguments(Noise)
        {'sigma': 'standard deviation, in units of the pixels.'}
    """
    arguments: dict[str, list[str]] = {}
    for base in reversed(cls.__mro__):
        section = _SECTION.search(f"{inspect.cleandoc(base.__doc__ or '')}\n")
        name = ""
        for line in section[1].splitlines() if section else ():
            start = _ARGUMENT.fullmatch(line[4:])
            if start:
                name, text = start[1], start[2]
                arguments[name] = [text]
            elif name and line.strip():
                arguments[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in arguments.items()}


def first_sentence(cls: type) -> str:
    """Return the first line of a class's own docstring."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
