"""SGLang's real FlashInfer backend without a GPU: FlashInfer's wrappers, whose compiled kernels are PyTorch's
(compiled.py), and SGLang's Triton kernels, run by Triton's interpreter. In a process of its own: both must be told
before they are imported. What is checked is in check_*.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CHECKS = sorted(Path(__file__).parent.glob("check_*.py"))

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")
pytest.importorskip("flashinfer", reason="FlashInfer is not installed: it comes with SGLang on Linux")


@pytest.mark.slow  # a minute and a half: the default run is to take no more than 15
@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU engine does nothing where CUDA is available")
def test_on_cpu() -> None:
    assert len(CHECKS) >= 3
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore", *map(str, CHECKS)],
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "OMP_NUM_THREADS": "1",
            "SGLANG_HETERO_SPEC_FLASHINFER_ON_CPU": "1",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout.splitlines()[-1]
