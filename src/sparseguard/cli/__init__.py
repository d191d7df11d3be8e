"""Command line: argument parsing and output, nothing else."""
