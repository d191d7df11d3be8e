"""Sparse-coding fronts before a module of a user's own model, ready to fine-tune."""

from sparseguard.protection.front import ProtectedLayer, ReconstructionLayer
from sparseguard.protection.insertion import Protected, protect
from sparseguard.protection.local_updates import UpdateHandle, apply_updates
from sparseguard.protection.summary import Changes

__all__ = ["Changes", "Protected", "ProtectedLayer", "ReconstructionLayer", "UpdateHandle", "apply_updates", "protect"]
