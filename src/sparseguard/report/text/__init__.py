"""Sentences and number formats."""
