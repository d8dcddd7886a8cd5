"""Several processes, as `accelerate launch` or torchrun starts them; here two on one CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_hetero_spec.serving.ports import free_ports


@pytest.mark.slow
def test_two_processes_make_one_drafter(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_ports(1)[0]),
        "-m", "sglang_hetero_spec.build.align", "--target", str(shop / "target"), "--answers",
        str(shop / "answers.jsonl"), "--general", "--out", str(out), "--layers", "2", "--loss", "auto", "--epochs", "3",
        "--optimizer", "adamw", "--learning-rate", "1e-3", "--batch-tokens", "256", "--set", "probe_tokens=500",
    ]  # fmt: skip
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert found.returncode == 0, found.stderr
    made = json.loads((out / "align.json").read_text())
    assert made["used"]["processes"] == 2
    assert len(made["probes"]) == 4
    points = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert points[-1]["tokens"] >= 2 * 3 * 40 * 20  # both processes' batches count
    assert found.stdout.count("steps, best at") == 1
