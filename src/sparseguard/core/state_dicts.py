"""Weights of other networks: read without unpickling, loaded completely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError

SHOWN = 3
ADVICE_TO_UNPICKLE_END = "from a trusted source. "
"""Ends what torch says of reading weights by running the code in their file, which is not passed on."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a file of `torch.save`, which is read with ``weights_only``.

    Raises:
        DataError: when it cannot be read so, or holds something else than tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # torch raises what its unpickler does
        message = " ".join(str(error).split())
        message = (message.partition(ADVICE_TO_UNPICKLE_END)[2] or message)[:300]
        raise DataError(
            f"{path}: neither safetensors nor a state dict that torch.load reads with weights_only=True ({message}). "
            "Save it with torch.save(network.state_dict(), path)."
        ) from None
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        content = (
            f"a table with {_list_names(list(loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        )
        raise DataError(f"{path}: holds {content} instead of tensors by name. Save the network's state dict alone.")
    return {str(name): value for name, value in loaded.items()}


def load_strictly(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights into a network whose names and shapes are exactly theirs.

    Raises:
        DataError: naming what is missing, what is too much, or what has another shape.
    """
    expected = network.state_dict()
    missing, extra = [sorted(set(a) - set(b)) for a, b in ((expected, weights), (weights, expected))]
    differences = [f"it lacks {_list_names(missing)}"] if missing else []
    differences += [f"it has {_list_names(extra)}, which the network does not have"] if extra else []
    if differences:
        raise DataError(f"{where}: the weights are another network's: {'; '.join(differences)}.")
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise DataError(
                f"{where}: the weights are another network's: '{name}' is {tuple(weights[name].shape)}, "
                f"the network's is {tuple(tensor.shape)}."
            )
    network.load_state_dict(dict(weights))


def _list_names(names: list[Any]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more
