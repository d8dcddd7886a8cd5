"""`hetero-spec regenerate` in a process of its own, which can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The command may not be on the command line's list yet.
PROGRAM = """
import sys
from sglang_hetero_spec import cli
from sglang_hetero_spec.commands import regenerate
if regenerate not in cli.COMMANDS:
    cli.COMMANDS += (regenerate,)
if __name__ == "__main__":
    sys.exit(cli.main(["regenerate", *sys.argv[1:]]))
"""


def start(*arguments: str | Path, before: str = "") -> subprocess.Popen[str]:
    """`before`: Python that runs first in the process (a limit, say)."""
    return subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
