"""Exit codes of the command line."""

from __future__ import annotations

OK, INTERNAL, RECIPE, DATA, STORE, FAILED_CASES, FLAGS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

EXIT_CODES = """Exit codes: 0 done; 1 an error inside sparseguard; 2 a recipe, option or setting that cannot be used;
3 data missing or damaged; 4 output folder in use, full, not writable or damaged; 5 some cases failed;
6 a check raised a flag the recipe does not expect; 130 interrupted."""
