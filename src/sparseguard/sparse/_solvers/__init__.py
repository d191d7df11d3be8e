"""Solvers of sparse-coding problems."""
