"""Putting a sparse-coding front before a part of a user's own model, ready to fine-tune."""

from sparseguard.protection.front import Guarded, Reconstructed
from sparseguard.protection.insertion import Protected, apply_updates, protect
from sparseguard.protection.summary import Changes

__all__ = ["Changes", "Guarded", "Protected", "Reconstructed", "apply_updates", "protect"]
