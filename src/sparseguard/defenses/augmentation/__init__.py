"""Defenses that change or add training images."""
