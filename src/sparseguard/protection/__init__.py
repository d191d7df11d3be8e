"""Putting a sparse-coding front before a part of a user's own model, ready to fine-tune."""

from sparseguard.protection.changes import Changes
from sparseguard.protection.front import Guarded, Reconstructed
from sparseguard.protection.protecting import Protected, apply_updates, protect

__all__ = ["Changes", "Guarded", "Protected", "Reconstructed", "apply_updates", "protect"]
