"""benchmarks/compare with tiny repositories: a package of one function, and a clock that only this function moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.compare import __main__ as compare
from benchmarks.compare.ratios import ratios
from benchmarks.compare.suites import Times

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--rounds", "1", "--seconds", "0.01")
SUITE = """
import work

def test_turns(benchmark):
    benchmark(work.turns)
"""
WORK = """
now = 0.0

def turns():
    global now
    now += {count} * 1e-6

def clock():
    global now
    now += 1e-9
    return now
"""


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("pytest.ini", "[pytest]\npythonpath = .\naddopts = --benchmark-timer=work.clock\n")

    def git(self, *args: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@t")
        run = subprocess.run(["git", *who, *args], cwd=self.path, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def turns(self, count: int) -> None:
        """What a call takes, in microseconds. The clock's own tick is what pytest-benchmark waits for at its start."""
        self.write("work.py", WORK.format(count=count))

    def commit(self, tag: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", tag)
        self.git("tag", tag)

    def trees(self) -> int:
        return len(self.git("worktree", "list").splitlines())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """bare: without benchmarks; short and long: calls of 1,000 and of 5,000 microseconds."""
    made = Repository(tmp_path / "repository")
    made.turns(1000)
    made.commit("bare")
    made.write("benchmarks/test_work.py", SUITE)
    made.commit("short")
    made.turns(5000)
    made.commit("long")
    monkeypatch.chdir(made.path)
    # The one plugin that is needed: pytest starts twice as fast.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_benchmark.plugin")
    return made


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What is printed to stderr last: one sentence."""
    assert compare.main(list(arguments)) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and last.endswith(".")
    return last


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert compare.main([*arguments, *QUICK, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_slower_commit_is_seen(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "short", "long")
    (row,) = found["benchmarks"]
    assert row["name"] == "benchmarks/test_work.py::test_turns"
    assert row["quickest"] == pytest.approx(5, rel=1e-3)
    assert row["low"] is None, "one pair has no interval"
    assert found["b"]["name"] == "long" and found["rounds"] == 1
    assert repository.trees() == 1 and repository.git("status", "--porcelain") == ""


def test_uncommitted_work_is_measured_and_left_alone(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.turns(100)
    repository.write("benchmarks/test_more.py", SUITE.replace("test_turns", "test_untracked"))
    before = repository.git("status", "--porcelain")
    found = measured(capsys, "long", ".")
    (row,) = found["benchmarks"]
    assert row["quickest"] == pytest.approx(0.02, rel=1e-3)
    assert found["only_b"] == ["benchmarks/test_more.py::test_untracked"]
    assert repository.git("status", "--porcelain") == before and repository.trees() == 1


def test_the_table_has_every_benchmark(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.turns(3)
    assert compare.main(["short", "long", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "test_work.py::test_turns" in out and "A: short (" in out and "1 benchmarks" in out
    assert "uncommitted work, which neither A nor B contains" in err


def test_suites_of_b_measure_an_older_package(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "bare", "long", "--suites", "B")
    assert found["benchmarks"][0]["quickest"] == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("nowhere", "long"), "'nowhere' is no commit"),
        (("long", "--", "-x"), "'-x' is no commit"),
        (("bare", "long"), "no benchmark that both have (bare ("),
        (("short", "long", "-k", "nothing_so_called"), "no benchmark matching 'nothing_so_called'"),
        (("short", "long", "--rounds", "0"), "--rounds 0 is too few"),
        (("short", "long", "--seconds", "0"), "--seconds 0 is no time"),
    ],
)
def test_bad_input(
    repository: Repository, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    assert what in refusal(capsys, *arguments)
    assert repository.trees() == 1


def test_a_commit_whose_benchmarks_do_not_import(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.write("benchmarks/test_work.py", "import nothing_so_called\n")
    repository.commit("broken")
    message = refusal(capsys, "short", "broken", *QUICK, code=1)
    assert "benchmarks of broken (" in message and "No module named 'nothing_so_called'" in message
    assert repository.trees() == 1


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is in no git repository" in refusal(capsys, "a", "b")


def test_ctrl_c_removes_the_trees(repository: Repository, tmp_path: Path) -> None:
    started = tmp_path / "started"
    repository.write("work.py", f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n")
    repository.commit("sleeps")
    command = [sys.executable, "-m", "benchmarks.compare", "sleeps", "long", *QUICK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=repository.path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if started.exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert started.exists() and process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("error: interrupted")
    assert repository.trees() == 1 and list(tmp_path.glob("compare-*")) == []


def times(*seconds: float) -> list[dict[str, Times]]:
    return [{"x": Times(quickest, quickest * 1.1)} for quickest in seconds]


def test_only_what_is_beyond_noise_is_marked() -> None:
    def mark(a: list[float], b: list[float]) -> str:
        (row,) = ratios(times(*a), times(*b))
        return row.mark

    assert mark([1.0, 1.01, 0.99, 1.0], [1.2, 1.21, 1.19, 1.2]) == "slower"
    assert mark([1.2, 1.21, 1.19, 1.2], [1.0, 1.01, 0.99, 1.0]) == "faster"
    assert mark([1.0, 1.4, 0.8, 1.1], [1.2, 1.0, 1.3, 0.9]) == ""
    assert mark([1.0] * 4, [1.02, 1.02, 1.02, 1.02]) == "", "sure, but too small"
    assert mark([1.0], [2.0]) == "", "one pair has no interval"


def test_drift_that_hits_both_cancels() -> None:
    (row,) = ratios(times(1.0, 2.0, 3.0), times(1.5, 3.0, 4.5))
    assert row.low == pytest.approx(1.5) and row.high == pytest.approx(1.5) and row.mark == "slower"
