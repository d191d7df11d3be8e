"""Defenses by sparse-coding layers."""
