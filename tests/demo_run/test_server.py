"""Servers that do not come up are explained, and nothing that was started stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sglang_hetero_spec.demo.arms import LESS_MEMORY, NONE, STANDALONE, TITLES
from sglang_hetero_spec.serving.errors import ServerEnded
from sglang_hetero_spec.serving.ports import free_ports
from sglang_hetero_spec.serving.server import ServerPlan, running, stop, why_it_ended

NO_POOL = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", "/nowhere")


def test_ports_are_free_and_different() -> None:
    ports = free_ports(6)
    assert len(set(ports)) == 6 and all(port > 0 for port in ports)


def test_a_server_that_refuses_to_start_says_why_and_the_others_end(tmp_path: Path) -> None:
    plans = [
        ServerPlan("none", ("--model-path", "/nowhere", "--device", "cpu"), {"CUDA_VISIBLE_DEVICES": ""}, TITLES[NONE]),
        ServerPlan("hetero", NO_POOL, title="HETERO"),
    ]
    before = set(living_children())
    with (
        pytest.raises(ServerEnded, match=r"SGLang \((HETERO\) did not start: /nowhere does not|no speculation\))"),
        running(plans, tmp_path, lambda _: None),
    ):
        pytest.fail("no server is up")
    assert set(living_children()) <= before


def living_children() -> list[psutil.Process]:
    """Living descendants of this test."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]


def test_a_group_that_ignores_termination_is_killed() -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    child = psutil.Process(int(leader.stdout.readline()))
    stop([leader])
    assert leader.returncode == -signal.SIGKILL
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    leader.stdout.close()


@pytest.mark.parametrize(
    ("code", "log", "says"),
    [
        (2, "noise\nhetero-spec: pool.json is missing; make it.\n", "did not start: pool.json is missing; make it."),
        (-9, "", "was killed, most likely for want of memory; close other programs, or try --target-params 100M"),
        (-9, "AttributeError: no such thing\n", "ended with code -9 (AttributeError: no such thing);"),
        (1, "Rank 0 scheduler died (exit code: -9).\n", "was killed, most likely for want of memory"),
        (1, "RuntimeError: Not enough memory. Please try\n", "ran out of memory"),
        (1, "Traceback\nValueError: old\nOSError: [Errno 98] x\n", "ended with code 1 (OSError: [Errno 98] x);"),
        (3, "", "ended with code 3; `hetero-spec doctor` checks the installation."),
    ],
)
def test_why_a_server_ended(tmp_path: Path, code: int, log: str, says: str) -> None:
    path = tmp_path / "log"
    path.write_text("hetero-spec: no CUDA here, so SGLang runs on the CPU engine of this package.\n" + log)
    said = why_it_ended(TITLES[STANDALONE], code, path, LESS_MEMORY)
    assert said.startswith("SGLang (STANDALONE)") and says in said and "\n" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sglang_hetero_spec.cli", "demo", "--target-params", "0", "--device", "cpu"]
    environ = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        servers = wait_for_servers(demo, 3)
        demo.send_signal(number)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (130, "") and err.splitlines()[-1] == "hetero-spec: interrupted."
    _, alive = psutil.wait_procs(servers, timeout=10)
    assert alive == []
    assert list(tmp_path.glob("hetero-spec-demo-*")) == []


def test_a_killed_demo_leaves_no_server_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sglang_hetero_spec.cli", "demo", "--target-params", "0", "--device", "cpu"]
    environ = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        servers = wait_for_servers(demo, 3)
        demo.kill()
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert alive == []


def wait_for_servers(demo: subprocess.Popen, number: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert demo.poll() is None, demo.stderr.read() if demo.stderr else ""
        found = psutil.Process(demo.pid).children(recursive=True)
        if len(found) >= number:
            return found
        time.sleep(0.1)
    raise AssertionError("the demo started no servers")
