"""Servers end with the process that started them, however that one ended: pytest-xdist, interrupted, kills its workers,
and nobody comes back from their `with` blocks."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

# Reads "+ group" and "- group"; at the end of its input, which is the end of the one who writes, the groups that are
# left are killed.
_PROGRAM = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    sign, group = line.split()
    (groups.add if sign == "+" else groups.discard)(int(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def watch(group: int) -> None:
    """group: a process group of its own."""
    _tell(f"+ {group}")


def forget(group: int) -> None:
    _tell(f"- {group}")


def _tell(line: str) -> None:
    pipe = _reaper().stdin
    assert pipe is not None
    pipe.write(line + "\n")
    pipe.flush()


@cache
def _reaper() -> subprocess.Popen[str]:
    """Of this process. A session of its own: Ctrl-C in the terminal is not for it."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", _PROGRAM], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
