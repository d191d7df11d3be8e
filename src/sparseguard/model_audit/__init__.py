"""Audits of a user's own model: attacks at its taps, recorded (`audit`) or one at a time (`reconstruct`)."""

from sparseguard.model_audit.accept_images import ImageSource
from sparseguard.model_audit.preprocessing import Preprocessed
from sparseguard.model_audit.reconstruction import Reconstruction, reconstruct
from sparseguard.model_audit.runner import DEFAULT_ATTACKS, Audit, audit

__all__ = ["DEFAULT_ATTACKS", "Audit", "ImageSource", "Preprocessed", "Reconstruction", "audit", "reconstruct"]
