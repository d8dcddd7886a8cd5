"""The benchmarks of one work tree, run in a fresh process, and what each of them took."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.trees import CompareError, Tree

_NO_TESTS = (4, 5)  # pytest's exit codes: a path that is not there, nothing collected
# benchmarks/ takes its models and plain references from there.
_SUITES = ("benchmarks", "tests")


@dataclass(frozen=True)
class Times:
    """Seconds of one call in one process: the quickest of its rounds, and their median."""

    quickest: float
    median: float


@dataclass(frozen=True)
class Settings:
    """keyword: pytest's -k, or "". seconds: pytest-benchmark's --benchmark-max-time for each benchmark."""

    keyword: str = ""
    seconds: float = 0.3


def same_suites(trees: tuple[Tree, Tree]) -> None:
    """Put B's suites in the place of A's: A's package, measured with benchmarks that it did not have yet."""
    for name in _SUITES:
        shutil.rmtree(trees[0].path / name, ignore_errors=True)
        if (trees[1].path / name).is_dir():
            shutil.copytree(trees[1].path / name, trees[0].path / name)


def run_suites(tree: Tree, settings: Settings, output: Path) -> dict[str, Times]:
    """Times by the benchmark's full name. output: a file for pytest-benchmark's JSON. Failing benchmarks are left
    out; CompareError where the tree has none at all or pytest itself failed."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "--benchmark-only", "--benchmark-disable-gc"]
    command += [f"--benchmark-json={output}", f"--benchmark-max-time={settings.seconds}", "--benchmark-warmup=on"]
    command += ["--benchmark-warmup-iterations=1", "-p", "no:cacheprovider"]
    command += ["-k", settings.keyword] if settings.keyword else []
    output.unlink(missing_ok=True)
    code, text = _run(command, tree.path)
    if code in _NO_TESTS:
        return {}
    if code not in (0, 1) or not output.is_file() or not output.stat().st_size:
        raise CompareError(f"The benchmarks of {tree.title} did not run: {_reason(text)}.", 1)
    found = json.loads(output.read_text(encoding="utf-8"))["benchmarks"]
    return {entry["fullname"]: Times(entry["stats"]["min"], entry["stats"]["median"]) for entry in found}


def _reason(text: str) -> str:
    """The last error that pytest shows, else its last line."""
    lines = text.strip().splitlines() or ["nothing was printed"]
    errors = [line[1:] for line in lines if line.startswith("E ")]
    return (errors or lines)[-1].strip().rstrip(".")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and output. The package is that of the folder, whatever is installed; Ctrl-C ends the whole group."""
    # Started from a worker of pytest-xdist, pytest-benchmark would take itself for one and measure nothing.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    environment = {**inherited, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, text
