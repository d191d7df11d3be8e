"""Component tables: the built-in components by name, and those that installed distributions add by entry points."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, final

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][\w.@-]*")


class ComponentWarning(UserWarning):
    """An installed distribution offers a component that cannot be used; the message names both."""


@final
class ComponentTable(MutableMapping[str, T]):
    """Components by name, in order: the built-in ones, then those of entry points, sorted by name.

    Entry points are read when a name that is not built in is looked up, or the table is listed. A broken one raises a
    `ComponentWarning` and is left out. So is one whose name is taken: by a built-in component, or by another
    distribution (then both are left out).

    Args:
        group: the entry points' group, e.g. ``sparseguard.defenses``.
        kind: class that components derive from; or, in a table of values, the class of the values.
        builtin: the built-in components: all classes, or all values, as in a table without any.

    Example:
        >>> from sparseguard.core.component_table import ComponentTable
        >>> numbers = ComponentTable("example.numbers", int, {"one": 1})
        >>> numbers["one"], list(numbers)
        (1, ['one'])
    """

    def __init__(self, group: str, kind: type[Any], builtin: Mapping[str, T]) -> None:
        self.group = group
        self._kind = kind
        self._classes = any(map(inspect.isclass, builtin.values()))
        self._components = dict(builtin)
        self._builtin = tuple(builtin)
        self._origins: dict[str, str] | None = None

    @property
    def builtin(self) -> tuple[str, ...]:
        """Names of the built-in components."""
        return self._builtin

    def origins(self) -> dict[str, str]:
        """Return the distribution and version, e.g. ``my-plugin 1.0``, of each component from an entry point."""
        self._load()
        return dict(self._origins or {})

    def __getitem__(self, name: str) -> T:
        if name not in self._components:
            self._load()
        return self._components[name]

    def __setitem__(self, name: str, component: T) -> None:
        self._components[name] = component

    def __delitem__(self, name: str) -> None:
        del self._components[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._components)

    def __len__(self) -> int:
        self._load()
        return len(self._components)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group!r}, {', '.join(self)})"

    def _load(self) -> None:
        if self._origins is not None:
            return
        self._origins = {}  # first, since a component's module may look the table up
        points = sorted(entry_points(group=self.group), key=lambda point: (point.name, _origin(point)))
        origins: dict[str, set[str]] = {}
        for point in points:
            origins.setdefault(point.name, set()).add(_origin(point))
        for point in points:
            problem = self._conflict(point, origins[point.name]) or self._add(point)
            if problem:
                warnings.warn(
                    f"{_origin(point)}: its entry point '{point.name}' in '{self.group}' {problem}; it is left out.",
                    ComponentWarning,
                    stacklevel=3,
                )

    def _conflict(self, point: EntryPoint, origins: set[str]) -> str:
        if not _NAME.fullmatch(point.name):
            return "has a name of other characters than letters, digits, '.', '_', '-' and '@'"
        if point.name in self._components and point.name not in (self._origins or {}):
            return "has the name of another component of sparseguard"
        if len(origins) > 1:
            return f"has the name of one of {', '.join(sorted(origins - {_origin(point)}))}"
        return ""

    def _add(self, point: EntryPoint) -> str:
        """Load a component into the table; return why it cannot be used, or nothing."""
        try:
            component = point.load()
        except (Exception, SystemExit) as error:
            return f"cannot be loaded ({type(error).__name__}: {_one_line(error)})"
        if problem := self._misfit(component):
            return problem
        self._components[point.name] = component
        if self._origins is not None:
            self._origins[point.name] = _origin(point)
        return ""

    def _misfit(self, component: Any) -> str:
        """Return why an object is no component of this table, or nothing."""
        if not self._classes:
            return (
                "" if isinstance(component, self._kind) else f"is {component!r:.100}, expected a {self._kind.__name__}"
            )
        if not (inspect.isclass(component) and issubclass(component, self._kind)):
            return f"is {component!r:.100}, expected a class derived from {self._kind.__name__}"
        if missing := [name for name in ("revision", "summary") if not hasattr(component, name)]:
            return f"has no {' and no '.join(missing)}"
        try:
            component()
        except Exception as error:
            return f"cannot be built with its default settings ({type(error).__name__}: {_one_line(error)})"
        return ""


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
