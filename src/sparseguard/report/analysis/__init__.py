"""Computations on records that several sections share."""
