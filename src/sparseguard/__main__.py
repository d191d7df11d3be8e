"""``python -m sparseguard``."""

from sparseguard.cli import main

main()
