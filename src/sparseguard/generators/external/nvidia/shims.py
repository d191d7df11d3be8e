"""Shims for modules that NVIDIA's code imports but does not need."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch.torch_version import TorchVersion


@contextmanager
def install_shims() -> Iterator[None]:
    """Install shims, within the context, of what NVIDIA's repositories import besides torch and numpy.

    Shims replace ``requests`` and ``click`` where they are not installed, and, unless they are loaded already,
    ``pkg_resources`` (gone from setuptools 82; used to compare versions), ``distutils`` (gone from Python 3.12) and
    `torch.utils.cpp_extension` (nothing is compiled). The latter three need setuptools, which alters `sys.path`.
    """
    missing = [
        name for name in SHIMS if name not in sys.modules and (name in ALWAYS or importlib.util.find_spec(name) is None)
    ]
    shims = {name: _build_module(name, SHIMS[name]) for name in missing}
    sys.modules.update(shims)
    try:
        yield
    finally:
        for name, module in shims.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _parse_bool(text: str) -> bool:
    return text.lower() in ("y", "yes", "t", "true", "on", "1")


def _no_decorator(*_args: Any, **_options: Any) -> Callable[[Any], Any]:
    return lambda function: function


SHIMS: dict[str, dict[str, Any]] = {
    "pkg_resources": {"parse_version": TorchVersion},
    "distutils": {"__path__": []},
    "distutils.util": {"strtobool": _parse_bool},
    "requests": {},
    "click": dict.fromkeys(("command", "option", "argument", "group", "pass_context"), _no_decorator),
    "torch.utils.cpp_extension": {},
}
ALWAYS = ("pkg_resources", "distutils", "distutils.util", "torch.utils.cpp_extension")


def _build_module(name: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module
