"""Codes of a first sparse layer that does not learn, computed once and stored."""
