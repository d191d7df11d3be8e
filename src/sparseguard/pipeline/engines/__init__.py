"""Engines that run the cases of a recipe."""
