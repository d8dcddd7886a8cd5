"""A start that cannot go well ends at once: exit code 2, one sentence on stderr, no traceback, no model loaded.

Each costs the imports of SGLang, so only a few go end to end; tests of server_args and of pools have the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sglang_hetero_spec.cpu.engine import SHIM_DIR
from tests.support.routed_pool import RoutedPool
from tests.support.servers import LAUNCH, SERVE


def start(command: tuple[str, ...], *args: str, **env: str) -> tuple[int, str, str]:
    """Exit code, the sentence on stderr that is ours, and all of stderr."""
    cpu = {"PYTHONPATH": SHIM_DIR, "SGLANG_USE_CPU_ENGINE": "1"} if command is LAUNCH else {}
    ran = subprocess.run(
        [*command, *args, "--port", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **cpu, **env},
    )
    ours = [line for line in ran.stderr.splitlines() if line.startswith("hetero-spec: ")]
    assert len(ours) <= 2, ran.stderr
    return ran.returncode, ours[-1] if ours else "", ran.stderr


def check_refused(started: tuple[int, str, str], *words: str) -> None:
    code, sentence, stderr = started
    assert code == 2, stderr
    assert all(word in sentence for word in words), stderr
    assert sentence.endswith(".") and "Traceback" not in stderr
    assert "Load weight" not in stderr and "KV Cache" not in stderr


def on_cpu(routed: RoutedPool, *args: str) -> tuple[str, ...]:
    return ("--model-path", str(routed.target), "--device", "cpu", *args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--enable-hierarchical-cache",), ("--enable-hierarchical-cache", "leave it out")),
        pytest.param(
            ("--speculative-num-steps", "4"), ("--speculative-num-steps", "pool.json"), marks=pytest.mark.slow
        ),
    ],
)
def test_what_hetero_does_not_support_is_refused_by_name(
    routed: RoutedPool, args: tuple[str, ...], words: tuple[str, ...]
) -> None:
    command = LAUNCH if args[0] == "--enable-hierarchical-cache" else SERVE
    check_refused(start(command, *on_cpu(routed, *routed.args, *args)), "does not support", *words)


@pytest.mark.slow
def test_a_missing_pool(routed: RoutedPool, tmp_path: Path) -> None:
    args = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(tmp_path / "none"))
    for command in (SERVE, LAUNCH):
        check_refused(start(command, *on_cpu(routed, *args)), str(tmp_path / "none"))


def test_a_pool_with_an_unknown_key(routed: RoutedPool, tmp_path: Path) -> None:
    manifest = json.loads((routed.pool / "pool.json").read_text())
    manifest["drafters"][0]["steps"] = 3
    (tmp_path / "pool.json").write_text(json.dumps(manifest))
    args = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(tmp_path))
    check_refused(start(SERVE, *on_cpu(routed, *args)), "pool.json", "drafters[0]", "steps")


@pytest.mark.slow
def test_no_pool(routed: RoutedPool) -> None:
    for command in (SERVE, LAUNCH):
        started = start(command, *on_cpu(routed, "--speculative-algorithm", "HETERO"))
        check_refused(started, "--speculative-draft-model-path")


MOVED_HOOK = """
import sglang_hetero_spec.worker.hooks as ours
first, second, *others = ours.HOOKS
moved = type(second)(second.target + "_moved", second.kind, second.function, second.why, second.retire)
ours.HOOKS = (first, moved, *others)
"""
OTHER_VERSION = """
import sglang_hetero_spec
sglang_hetero_spec.SGLANG_VERSION = "0.5.99"
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # SGLang logs and forgets a hook that fails. No installed SGLang makes one fail, so one is made to.
        pytest.param(MOVED_HOOK, ("_moved did not take hold", "hetero-spec doctor"), id="hook"),
        pytest.param(
            OTHER_VERSION, ("is made for 0.5.99", "install that version"), id="version", marks=pytest.mark.slow
        ),
    ],
)
def test_an_sglang_that_is_not_ours(routed: RoutedPool, tmp_path: Path, change: str, words: tuple[str, ...]) -> None:
    (tmp_path / "sitecustomize.py").write_text(change)
    path = os.pathsep.join((SHIM_DIR, str(tmp_path)))
    code, sentence, stderr = start(LAUNCH, *on_cpu(routed, *routed.args), PYTHONPATH=path)
    # SGLang itself logs the failed hook with a traceback.
    check_refused((code, sentence, stderr.replace("Traceback", "", "Failed to apply hooks" in stderr)), *words)
