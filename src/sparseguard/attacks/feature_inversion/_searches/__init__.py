"""Helpers of white-box searches for images by their features."""
