"""The Triton kernels, run by Triton's interpreter: it must be asked for before Triton is imported, so in a process of
its own. What is checked is in tests/cuda/interpreter/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKS = sorted((Path(__file__).parent / "interpreter").glob("check_*.py"))

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")


def test_under_the_interpreter() -> None:
    assert len(CHECKS) >= 4
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *map(str, CHECKS)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    last = run.stdout.splitlines()[-1]
    assert " passed" in last and "skipped" not in last
