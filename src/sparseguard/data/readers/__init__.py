"""Readers of image files: folders, archives, arrays, and the formats of published data sets."""
