"""kill -9 at several moments, then the same again: the weights are those of a run that nobody stopped."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sglang_hetero_spec.build.align import align
from sglang_hetero_spec.pool import weights_sha256
from tests.build.align import toy

CHANGES = {"optimizer": "muon", "learning_rate": 5e-3, "epochs": 12.0, "evaluations": 12, "lora": None}


def _align(shop: Path, out: Path, changes: dict[str, object]) -> None:
    torch.set_num_threads(1)
    align(toy.request(shop, out, **changes))


def kill_when(shop: Path, out: Path, changes: dict[str, object], seen: Callable[[], bool]) -> None:
    # A server that has the imports, and has computed nothing, forks each run: no second of imports each time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sglang_hetero_spec.build.align.distil", "tests.build.align.toy"])
    run = context.Process(target=_align, args=(shop, out, changes))
    run.start()
    deadline = time.monotonic() + 120
    while run.is_alive() and not seen() and time.monotonic() < deadline:
        time.sleep(0.003)
    run.kill()  # SIGKILL
    run.join()


def points(out: Path) -> int:
    path = out / "curve.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def curve(out: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    return [{key: value for key, value in point.items() if key != "seconds"} for point in found]


def half_a_checkpoint(out: Path) -> bool:
    """Between a checkpoint's first file and its mark."""
    return any(not (path / "complete").is_file() for path in (out / ".work").glob("checkpoint-*"))


@pytest.mark.parametrize("changes", [CHANGES, {**CHANGES, "optimizer": "adamw", "lora": {"r": 4, "dropout": 0.1}}],
                         ids=["muon", "lora-dropout"])  # fmt: skip
def test_killed_and_run_again_it_ends_with_the_same_weights(
    shop: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    whole = align(toy.request(shop, tmp_path / "whole", **changes)).made
    again = tmp_path / "again"
    kill_when(shop, again, changes, lambda: (again / ".work").is_dir())
    for more in (1, 3):
        target = points(again) + more
        kill_when(shop, again, changes, lambda target=target: points(again) >= target)
        assert not (again / "align.json").exists()
    kill_when(shop, again, changes, lambda: half_a_checkpoint(again))
    made = align(toy.request(shop, again, **changes)).made
    assert made["weights_sha256"] == whole["weights_sha256"] == weights_sha256(again)
    assert made["heldout"] == whole["heldout"]
    assert made["trained"] == whole["trained"]
    assert curve(again) == curve(tmp_path / "whole")
