"""Reads CIFAR-10's official batches, the python and the binary version, without unpickling anything.

A python batch is a pickle, and unpickling can run whatever a file says. Here its opcodes are walked as data: plain
values, and the one form an array of bytes is written in, are put together; nothing is looked up or called. Any other
opcode, name or form is refused.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the CIFAR-10 page, section
"Dataset layout".
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sparseguard.core.errors import DataError

Bytes = npt.NDArray[np.uint8]

SIDE, CHANNELS = 32, 3
VALUES = CHANNELS * SIDE * SIDE
LARGEST = 1 << 26
"""A batch of more bytes than this is refused (twice an official one)."""

# fmt: off
_VALUES = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "NONE", "NEWTRUE", "NEWFALSE", "SHORT_BINSTRING", "BINSTRING",
    "SHORT_BINBYTES", "BINBYTES", "BINUNICODE", "SHORT_BINUNICODE", "GLOBAL",
))
# fmt: on
_IGNORED = frozenset(("PROTO", "FRAME"))
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = frozenset(("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"))
_MARK = object()


@dataclass(kw_only=True, eq=False)
class _Reconstructed:
    """A call in the pickle that is not made: its name, its arguments, and the state of its result."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


class _RefusedError(ValueError):
    """The pickle is not of the one form that is read."""


def read_python_batch(content: bytes, where: str) -> tuple[Bytes, Bytes]:
    """Read a batch of the python version: ``(n, 32, 32, 3)`` and ``(n,)``, both uint8.

    Args:
        content: the file, a pickled dict with ``data``, ``(n, 3072)`` uint8, and ``labels``, a list of n integers
            in 0..9.
        where: what messages call the file.

    Raises:
        DataError: when the file is anything else, whatever it would do if it were unpickled.
    """
    try:
        batch = _plain(content, where)
        data, labels = _array(batch.get("data")), _labels(batch.get("labels"))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{where}: not a batch of CIFAR-10's python version ({error}). It was not unpickled. Get it again."
        ) from None
    return _checked(data, labels, where)


def read_binary_batch(content: bytes, where: str) -> tuple[Bytes, Bytes]:
    """Read a batch of the binary version: ``(n, 32, 32, 3)`` and ``(n,)``, both uint8.

    Args:
        content: the file, n rows of one label and 3,072 values, red, green and blue in turn.
        where: what messages call the file.

    Raises:
        DataError: when the file has no whole number of rows, or a label above 9.

    Example:
        >>> pixels, labels = read_binary_batch(bytes([7]) + bytes(3072), "data_batch_1.bin")
        >>> pixels.shape, labels.tolist()
        ((1, 32, 32, 3), [7])
    """
    if not content or len(content) % (VALUES + 1):
        raise DataError(
            f"{where}: has {len(content):,} bytes, expected a multiple of {VALUES + 1:,}, one label and one image a "
            "row. Get it again."
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, VALUES + 1)
    return _checked(rows[:, 1:], rows[:, 0], where)


def _checked(data: Bytes, labels: Bytes, where: str) -> tuple[Bytes, Bytes]:
    if len(data) != len(labels):
        raise DataError(f"{where}: holds {len(data):,} images but {len(labels):,} labels. Get it again.")
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise DataError(f"{where}: label {labels[first]} of image {first:,}, expected 0..9. Get it again.")
    return np.ascontiguousarray(data.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)), labels


def _array(value: Any) -> Bytes:
    """Return what is a pickled ``(n, 3072)`` array of unsigned bytes in C order."""
    if not isinstance(value, _Reconstructed) or value.name not in _RECONSTRUCT:
        raise _RefusedError("'data' is no array")
    match value.state:
        case (
            1,
            (int(count), int(width)),
            _Reconstructed(name="numpy dtype", arguments=("u1", *_)),
            False,
            str(values),
        ):
            if width != VALUES or count < 1 or len(values) != count * width:
                raise _RefusedError(f"'data' declares {count:,} x {width:,} bytes and has {len(values):,}")
            return np.frombuffer(values.encode("latin-1"), dtype=np.uint8).reshape(count, width)
    raise _RefusedError("'data' is no array of unsigned bytes in C order")


def _labels(labels: Any) -> Bytes:
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise _RefusedError("'labels' is no list of small integers")
    return np.array(labels, dtype=np.uint8)


def _plain(content: bytes, where: str) -> dict[str, Any]:
    """Put together what a pickle holds, as far as it is plain values and arrays."""
    if len(content) > LARGEST:
        raise DataError(f"{where}: has {len(content):,} bytes, expected at most {LARGEST:,}. It is no CIFAR-10 batch.")
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name == "STOP":
            break
        _step(opcode.name, argument, stack, memo, position)
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise _RefusedError("it holds no dict")
    return cast("dict[str, Any]", stack[0])


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], position: int | None) -> None:
    if name in _IGNORED:
        return
    if name in _VALUES:
        stack.append(argument.decode("latin-1") if isinstance(argument, bytes) else _constant(name, argument))
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in _TUPLES:
        stack.append(tuple(_pop(stack, _TUPLES[name])))
    elif name in _BUILDERS:
        _BUILDERS[name](stack)
    else:
        raise _RefusedError(f"opcode {name} at byte {position}")


def _constant(name: str, argument: Any) -> Any:
    return {"NEWTRUE": True, "NEWFALSE": False}.get(name, argument)


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise _RefusedError("a value is missing")
    values = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return values


def _to_mark(stack: list[Any]) -> list[Any]:
    start = next((index for index in range(len(stack) - 1, -1, -1) if stack[index] is _MARK), None)
    if start is None:
        raise _RefusedError("a mark is missing")
    values = _pop(stack, len(stack) - start)
    return values[1:]


def _extend(stack: list[Any], values: list[Any]) -> None:
    if not stack or not isinstance(stack[-1], list):
        raise _RefusedError("values are added to what is no list")
    stack[-1].extend(values)


def _set(stack: list[Any], values: list[Any]) -> None:
    if not stack or not isinstance(stack[-1], dict) or len(values) % 2:
        raise _RefusedError("items are set in what is no dict")
    keys = values[::2]
    if not all(type(key) is str for key in keys):
        raise _RefusedError("a key is no text")
    stack[-1].update(zip(keys, values[1::2], strict=True))


def _reduce(stack: list[Any]) -> None:
    name, arguments = _pop(stack, 2)
    if type(name) is not str or not isinstance(arguments, tuple):
        raise _RefusedError("a call of what has no name, or without arguments")
    if name != "numpy dtype" and name not in _RECONSTRUCT:
        raise _RefusedError(f"it would call {name[:80]!r}")
    stack.append(_Reconstructed(name=name, arguments=arguments))


def _build(stack: list[Any]) -> None:
    value, state = _pop(stack, 2)
    if not isinstance(value, _Reconstructed):
        raise _RefusedError("a state is given to what has none")
    value.state = state
    stack.append(value)


def _stack_global(stack: list[Any]) -> None:
    module, name = _pop(stack, 2)
    if type(module) is not str or type(name) is not str:
        raise _RefusedError("a name is no text")
    stack.append(f"{module} {name}")


_BUILDERS: dict[str, Callable[[list[Any]], None]] = {
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "TUPLE": lambda stack: stack.append(tuple(_to_mark(stack))),
    "APPEND": lambda stack: _extend(stack, _pop(stack, 1)),
    "APPENDS": lambda stack: _extend(stack, _to_mark(stack)),
    "SETITEM": lambda stack: _set(stack, _pop(stack, 2)),
    "SETITEMS": lambda stack: _set(stack, _to_mark(stack)),
    "REDUCE": _reduce,
    "BUILD": _build,
    "STACK_GLOBAL": _stack_global,
}
