"""The command line without a process of its own, whose start takes longer than most commands."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

from sparseguard.cli import app as cli


def in_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a process with these arguments would have ended with and written."""
    command = ["sparseguard", *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    code: object = None
    with mock.patch.object(sys, "argv", command), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(command, code, out.getvalue(), errors.getvalue())
