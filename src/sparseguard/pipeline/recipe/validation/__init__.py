"""Validation of a recipe file: limits, older words, short forms, the pydantic model, messages."""
