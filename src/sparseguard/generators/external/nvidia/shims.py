"""Small stand-ins for modules that older code imports and may not find, or of which nothing is needed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch.torch_version import TorchVersion


@contextmanager
def stand_ins() -> Iterator[None]:
    """Let code import what NVIDIA's repositories need besides torch and numpy to build and run a network.

    ``requests`` and ``click``, of which only the import is needed, are replaced where they are not installed. Replaced
    wherever they are not loaded yet: ``pkg_resources`` (gone from setuptools 82), of which versions are compared;
    ``distutils`` (gone from Python 3.12); `torch.utils.cpp_extension`, since nothing is compiled. They need setuptools,
    which alters `sys.path` when it is imported.
    """
    missing = [
        name
        for name in STAND_INS
        if name not in sys.modules and (name in ALWAYS or importlib.util.find_spec(name) is None)
    ]
    made = {name: _module(name, STAND_INS[name]) for name in missing}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _truth(text: str) -> bool:
    return text.lower() in ("y", "yes", "t", "true", "on", "1")


def _decorates(*_args: Any, **_options: Any) -> Callable[[Any], Any]:
    return lambda function: function


STAND_INS: dict[str, dict[str, Any]] = {
    "pkg_resources": {"parse_version": TorchVersion},
    "distutils": {"__path__": []},
    "distutils.util": {"strtobool": _truth},
    "requests": {},
    "click": dict.fromkeys(("command", "option", "argument", "group", "pass_context"), _decorates),
    "torch.utils.cpp_extension": {},
}
ALWAYS = ("pkg_resources", "distutils", "distutils.util", "torch.utils.cpp_extension")


def _module(name: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module
