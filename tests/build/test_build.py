"""`hetero-spec build`: bad input in one sentence before anything is loaded; a killed build goes on to the same pool."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.demo.data import TASKS, Sources, examples
from sglang_hetero_spec.pool import file_sha256, load_pool

TARGET = Path(__file__).resolve().parents[2] / "sglang_hetero_spec" / "demo" / "assets" / "target"
SMALL = {
    "regenerate.max_new_tokens": "48", "align.tokens": "20000", "align.optimizer": "muon", "align.cache": "hidden",
    "align.shape": "{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 32}",
    "profile.concurrency": "[2]", "profile.num_prompts": "4", "profile.passes": "1", "profile.max_new_tokens": "16",
    "flags": '["--dtype", "float32", "--mem-fraction-static", "0.8", "--max-total-tokens", "4000"]',
}  # fmt: skip


def command(log: Path, out: Path, target: Path = TARGET) -> list[str]:
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    cli = (sys.executable, "-m", "sglang_hetero_spec.cli")
    return [*cli, "build", "--target", str(target), "--prompts", str(log), "--out", str(out), *settings]


def run(log: Path, out: Path, target: Path = TARGET) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(log, out, target), capture_output=True, text=True, timeout=900)


def write_log(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def refused(ran: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert ran.returncode == code and "Traceback" not in ran.stderr, ran.stderr
    return [line for line in ran.stderr.splitlines() if line.startswith("hetero-spec: ")][-1]


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "is empty"), (b"\x00\xff\x00\x01" * 200, "text"), (b'{"prompt": "a"}\n' * 40, "same")],
    ids=["empty", "binary", "all equal"],
)
def test_logs_that_cannot_be(tmp_path: Path, content: bytes, word: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(content)
    said = refused(run(log, tmp_path / "pool"))
    assert (word in said and str(log) in said) or word in said, said


def test_three_prompts(tmp_path: Path) -> None:
    assert "3" in refused(run(write_log(tmp_path / "log.jsonl", ["a b", "c d", "e f"]), tmp_path / "pool"))


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    said = refused(run(write_log(tmp_path / "log.jsonl", ["a"]), tmp_path / "pool", tmp_path / "nowhere"))
    assert "nowhere" in said


@pytest.mark.slow
def test_a_target_that_sglang_cannot_load(tmp_path: Path) -> None:
    target = Path(shutil.copytree(TARGET, tmp_path / "target"))
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "model_type": "no_such", "architectures": ["NoSuch"]}))
    log = write_log(tmp_path / "log.jsonl", [f"prompt {number}" for number in range(20)])
    said = refused(run(log, tmp_path / "pool", target), code=1)
    assert "model type `no_such`" in said and "its log is" in said
    assert (Layout(tmp_path / "pool").partition / "stage.done").exists()


def test_a_second_build_into_one_folder(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [f"prompt {number}" for number in range(20)])
    with directory_lock(tmp_path / "pool", "build", "the first"):
        assert "in use by `the first`" in refused(run(log, tmp_path / "pool"))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = list(TASKS)[3:5]
    texts = [e.prompt for task in tasks for e in examples(task, 30, heldout=False, sources=Sources(None))]
    return write_log(tmp_path_factory.mktemp("log") / "log.jsonl", texts)


def test_the_plan_writes_nothing(log: Path, tmp_path: Path) -> None:
    ran = subprocess.run([*command(log, tmp_path / "pool"), "--plan", "--json"], capture_output=True, text=True)
    stages = [row["stage"] for row in json.loads(ran.stdout)]
    assert stages[:3] == ["partition", "regenerate", "drafters"] and not (tmp_path / "pool").exists()


@pytest.mark.soak
def test_killed_at_ten_random_moments_it_makes_the_same_pool(log: Path, tmp_path: Path) -> None:
    """kill -9, each followed by the same command, against a build that nobody killed.

    What is measured differs from run to run. All else must be equal, and with one build's measurements in the
    other one's place the pools must be equal to the byte.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(log, whole)
    kill_ten_times(log, killed)
    finish(log, killed)
    made = not_measured(whole)
    assert made == not_measured(killed)
    shutil.copy(Layout(whole).profile, Layout(killed).profile)
    finish(log, killed)
    assert not_measured(killed) == made
    assert served(whole) == served(killed)
    for out in (whole, killed):
        pool = load_pool(out, target=TARGET)
        assert {task.id for task in pool.tasks} and (out / "report.html").stat().st_size > 10_000


def finish(log: Path, out: Path) -> None:
    ran = run(log, out)
    assert ran.returncode == 0, ran.stderr[-3000:]


def kill_ten_times(log: Path, out: Path) -> None:
    """Up to 30 s after the start: some before anything is loaded, some in each of the long stages."""
    moments, kills = random.Random(0), 0
    while kills < 10:
        with (out.parent / "killed.log").open("ab") as output:
            process = subprocess.Popen(command(log, out), stdout=output, stderr=output, start_new_session=True)
        try:
            assert process.wait(timeout=moments.uniform(1, 30)) == 0
            shutil.rmtree(out)  # it was quicker: from the beginning
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1


def not_measured(out: Path) -> dict[str, str]:
    """Hashes of tasks, answers and all aligned drafters."""
    layout = Layout(out)
    paths = [layout.answers, layout.partition / "prompts.jsonl", *layout.stage("drafters").glob("*/model.safetensors")]
    assert len(paths) >= 4
    return hashes(layout.work, paths)


def served(out: Path) -> dict[str, str]:
    """Hashes of all that a server reads."""
    paths = [out / "pool.json", *(out / "drafters").rglob("*"), *(out / "router").rglob("*")]
    return hashes(out, [path for path in paths if path.is_file()])


def hashes(root: Path, paths: list[Path]) -> dict[str, str]:
    return {str(path.relative_to(root)): file_sha256(path) for path in sorted(paths)}
