"""``python -m sparseguard``."""

from sparseguard.cli.app import main

main()
