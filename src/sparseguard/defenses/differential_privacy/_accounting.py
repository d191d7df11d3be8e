"""Privacy accounting of DP-SGD by Opacus' accountants."""

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


def import_opacus(module: str) -> Any:
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


def compute_epsilon(
    *, noise_multiplier: float, rate: float, steps: int, delta: float, accountant: Accountant = "prv"
) -> float:
    """Return an epsilon that DP-SGD does not exceed, except with probability ``delta``.

    Args:
        noise_multiplier: standard deviation of the noise in units of the clipping norm.
        rate: probability that an image is in a batch.
        steps: number of steps.
        delta: the probability.
        accountant: ``rdp`` adds up Renyi divergences; ``prv`` sums privacy losses on a grid, wherever Opacus can, and
            takes the lower of both bounds.
    """
    orders = [*import_opacus("accountants").RDPAccountant.DEFAULT_ALPHAS, *HIGH_ORDERS]
    history = [(noise_multiplier, rate, steps)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")  # the last one of the list; it still bounds
        renyi = import_opacus("accountants").RDPAccountant()
        renyi.history = history
        above = float(renyi.get_epsilon(delta, alphas=orders))
        if accountant == "rdp" or above > SUMMED_UP_TO:
            return above
        summed = import_opacus("accountants").PRVAccountant()
        summed.history = history
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                return min(above, float(summed.get_epsilon(delta, eps_error=max(0.01, above / 1000))))
        except (ArithmeticError, RuntimeError, ValueError):
            return above


def find_noise_multiplier(
    *, epsilon: float, rate: float, steps: int, delta: float, accountant: Accountant = "prv"
) -> float:
    """Return a noise multiplier that spends at most ``epsilon``, and little less.

    Raises:
        RecipeError: when no noise is enough.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")
        try:
            high = import_opacus("accountants.utils").get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=epsilon / 1000,
                alphas=[*import_opacus("accountants").RDPAccountant.DEFAULT_ALPHAS, *HIGH_ORDERS],
            )
        except ValueError as error:
            raise RecipeError(f"dp-sgd finds no noise for epsilon = {epsilon}, delta = {delta}: {error}") from None
    low, trials = 0.75 * high, 8 if accountant == "prv" else 0
    while trials:
        middle, trials = (low + high) / 2, trials - 1
        spent = compute_epsilon(noise_multiplier=middle, rate=rate, steps=steps, delta=delta, accountant=accountant)
        if spent > epsilon:
            low = middle
        else:
            high = middle
            trials = 0 if spent > 0.995 * epsilon else trials
    return float(high)
