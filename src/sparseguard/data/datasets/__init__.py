"""Data sets: a file without underscore is an entry of the table `DATASETS`."""
