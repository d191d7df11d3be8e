"""What DP-SGD spends, by Opacus' accountants."""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any, Literal

import numpy as np

from sparseguard.core.errors import RecipeError

Accountant = Literal["prv", "rdp"]
HIGH_ORDERS = (128, 256, 512, 1024)
"""Renyi orders besides Opacus' own, which end at 63: small epsilons need them."""

SUMMED_UP_TO = 200.0
"""Privacy losses are summed on a grid for epsilons up to this; above, Opacus' grid overflows."""


def opacus(module: str) -> Any:
    """Import a module of Opacus.

    Raises:
        RecipeError: when it is not installed.
    """
    handlers = list(logging.root.handlers)
    try:
        return importlib.import_module(f"opacus.{module}")
    except ImportError:
        raise RecipeError('dp-sgd needs opacus. Install it: pip install "sparseguard[privacy]"') from None
    finally:
        logging.root.handlers[:] = handlers  # importing Opacus sets up logging for the whole program


def spent(*, noise_multiplier: float, rate: float, steps: int, delta: float, accountant: Accountant = "prv") -> float:
    """Return an epsilon that DP-SGD does not exceed, but for a chance of ``delta``.

    Args:
        noise_multiplier: standard deviation of the noise in units of the clipping norm.
        rate: with which an image is in a batch.
        steps: taken.
        delta: the chance.
        accountant: ``rdp`` adds up Renyi divergences; ``prv`` sums privacy losses on a grid, wherever Opacus can, and
            takes the lower of both bounds.
    """
    orders = [*opacus("accountants").RDPAccountant.DEFAULT_ALPHAS, *HIGH_ORDERS]
    history = [(noise_multiplier, rate, steps)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")  # the last one of the list; it still bounds
        renyi = opacus("accountants").RDPAccountant()
        renyi.history = history
        above = float(renyi.get_epsilon(delta, alphas=orders))
        if accountant == "rdp" or above > SUMMED_UP_TO:
            return above
        summed = opacus("accountants").PRVAccountant()
        summed.history = history
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                return min(above, float(summed.get_epsilon(delta, eps_error=max(0.01, above / 1000))))
        except (ArithmeticError, RuntimeError, ValueError):
            return above


def noise_for(*, epsilon: float, rate: float, steps: int, delta: float, accountant: Accountant = "prv") -> float:
    """Return a noise multiplier for which at most ``epsilon`` is `spent`, and little less.

    Raises:
        RecipeError: when no noise is enough.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")
        try:
            high = opacus("accountants.utils").get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=epsilon / 1000,
                alphas=[*opacus("accountants").RDPAccountant.DEFAULT_ALPHAS, *HIGH_ORDERS],
            )
        except ValueError as error:
            raise RecipeError(f"dp-sgd finds no noise for epsilon = {epsilon}, delta = {delta}: {error}") from None
    low, left = 0.75 * high, 8 if accountant == "prv" else 0
    while left:
        middle, left = (low + high) / 2, left - 1
        found = spent(noise_multiplier=middle, rate=rate, steps=steps, delta=delta, accountant=accountant)
        if found > epsilon:
            low = middle
        else:
            high = middle
            left = 0 if found > 0.995 * epsilon else left
    return float(high)
