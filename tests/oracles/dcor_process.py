"""Distance correlations by dcor, in a process of its own.

dcor compiles on import, for seconds, sets torch to as many threads as there are cores, and its compiler has ended the
process once in some dozens of imports. A process that is ended by a signal is started again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ATTEMPTS = 3
SCRIPT = """
import json, sys
import dcor, numpy
pairs = json.load(sys.stdin)
print(json.dumps([float(dcor.distance_correlation(numpy.array(x), numpy.array(z))) for x, z in pairs]))
"""


def distance_correlations(pairs: Sequence[tuple[Any, Any]]) -> list[float]:
    """Return the distance correlation of the rows of each pair of arrays."""
    given = json.dumps([[x.tolist(), z.tolist()] for x, z in pairs])
    for _ in range(ATTEMPTS):
        done = subprocess.run([sys.executable, "-c", SCRIPT], input=given, capture_output=True, text=True, check=False)
        if done.returncode >= 0:
            break
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
