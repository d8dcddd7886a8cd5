"""What bad input, a full disk and a drafter that diverges get from `hetero-spec build`: one sentence, all that is
finished kept, and the same command goes on."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sglang_hetero_spec.build.regenerate.answers import read_answers
from sglang_hetero_spec.pool import load_pool
from tests.build.regenerate.fakes import serving
from tests.build.whole import CONTEXT, SmallVocabulary, Whole, write_log, write_target

STAGES = ["partition", "regenerate", "split", "drafters", "profile", "merge", "assign", "router"]
# A stage (or what is said before the pool is put together), the largest file that fits from then on, what did not fit.
FULL = [
    ("partition ...", 0, "partition/stage.key"),
    ("partition ...", 700, "partition/prompts.jsonl"),
    ("regenerate ...", 1500, "answers.jsonl.part"),
    ("split ...", 700, "split/train.jsonl"),
    ("drafters ...", 2000, "cache"),
    ("drafters ...", 8000, "checkpoint"),
    ("profile ...", 2000, "profile.jsonl.passes"),
    ("merge ...", 700, "merge/prompts.jsonl"),
    ("assign ...", 700, "assign/assignment.json"),
    ("router ...", 700, "router"),
    ("router: done", 0, "pool/drafters/"),
]

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.build.whole import Whole

target, log, out, url, when = sys.argv[1:]
Whole(Path(target), Path(log), Path(out), url,
      on_say=lambda text: text.startswith(when) and os.kill(os.getpid(), signal.SIGKILL)).run()
"""
STEPS = {"align.tokens": "2500"}  # with fewer it ends before it has diverged


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_target(tmp_path_factory.mktemp("target") / "target")


@pytest.fixture
def whole(target: Path, tmp_path: Path) -> Iterator[Whole]:
    with serving(SmallVocabulary(context=CONTEXT)) as server:
        yield Whole(target, write_log(tmp_path / "log.jsonl"), tmp_path / "pool", server.url)


@pytest.fixture
def largest_file() -> Iterator[Callable[[int | None], None]]:
    """Sets how large a file may be; the kernel refuses more just as on a full disk. None: as large as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


def test_a_disk_that_fills_up_again_and_again(whole: Whole, largest_file: Callable[[int | None], None]) -> None:
    """In every stage; each run goes on from where the one before was stopped."""
    finished = 0
    for when, size, what in FULL:
        whole.on_say = lambda text, when=when, size=size: largest_file(size) if text.startswith(when) else None
        ended = whole.run()
        largest_file(None)
        said = ended.sentence
        assert what in said and "cannot" in said and ("free" in said or "choose" in said), (when, said)
        assert len(ended.done_before) >= finished, (when, ended.said)
        finished = len(ended.done_before)
        assert not (whole.out / "pool.json").exists()
    whole.on_say = lambda text: None
    ended = whole.run()
    assert ended.code == 0 and ended.done_before == STAGES
    assert whole.aligned == ["general", "greet", "sum"] * 3
    assert load_pool(whole.out, target=whole.target).tasks


def test_what_was_measured_before_the_disk_was_full_is_kept(
    whole: Whole, largest_file: Callable[[int | None], None]
) -> None:
    whole.on_say = lambda text: largest_file(2000) if text == "profile ..." else None
    assert "what was measured is kept" in whole.run().sentence
    largest_file(None)
    measured = len(whole.engine.runs)
    whole.on_say = lambda text: None
    ended = whole.run()
    assert any("passes were measured before and are kept" in line for line in ended.said)
    assert len(whole.engine.runs) < 2 * measured


def test_a_drafter_for_which_the_disk_has_no_room_is_made_by_the_next_run(
    whole: Whole, largest_file: Callable[[int | None], None]
) -> None:
    whole.on_align = lambda name: largest_file(8000 if name == "greet" else None)
    said = whole.run().sentence
    largest_file(None)
    assert "greet" in said and "free disk space" in said
    whole.on_align = lambda name: None
    ended = whole.run()
    assert ended.code == 0 and json.loads((whole.layout.stage("drafters") / "not_made.json").read_text()) == []


def test_a_drafter_whose_training_diverges_is_left_out(whole: Whole) -> None:
    whole.settings = STEPS
    whole.align = {"sum": ["--learning-rate", "1e30"]}
    for _ in range(2):
        ended = whole.run()
        assert ended.code == 0, ended.said
        reason = next(line for line in ended.said if line.startswith("Drafter `sum` was not made: "))
        assert "diverged" in reason and "lower `learning_rate`" in reason
    assert ended.done_before == STAGES and whole.aligned == ["general", "greet", "sum"]
    assert {name.split(".", 1)[-1] for name in whole.engine.starts[0]} == {"none", "general", "greet"}
    assert "sum" not in {drafter.name for drafter in load_pool(whole.out, target=whole.target).drafters}


def test_all_trainings_diverge_and_the_recipe_is_mended(whole: Whole) -> None:
    whole.settings = {**STEPS, "align.learning_rate": "1.0e+30"}
    said = whole.run().sentence
    assert said.startswith("No drafter could be aligned; general: Training of `general` diverged"), said
    whole.settings = {**STEPS, "align.learning_rate": "1.0e-3"}
    ended = whole.run()
    assert ended.code == 0 and ended.done_before == ["partition", "regenerate", "split"]


@pytest.mark.parametrize("settings", [{}, {"partition.use_labels": "false", "partition.n_tasks": "1"}])
def test_one_task_needs_no_router(whole: Whole, settings: dict[str, str]) -> None:
    write_log(whole.log, tasks=("sum",) if not settings else ("sum", "greet"))
    whole.settings = settings
    ended = whole.run()
    assert ended.code == 0, ended.said
    pool = load_pool(whole.out, target=whole.target)
    assert pool.router is None and len(pool.tasks) == 1
    assert whole.run().done_before == [stage for stage in STAGES if stage != "router"]


def test_prompts_beyond_the_context_are_listed_and_the_rest_is_built(whole: Whole) -> None:
    long = json.dumps({"prompt": "word " * CONTEXT, "task": "sum"})
    whole.log.write_text(f"{whole.log.read_text()}{long}\n")
    assert whole.run().code == 0
    assert len(read_answers(whole.layout.answers)) == 32
    rejects = whole.layout.answers.with_name("answers.rejects.jsonl").read_text()
    assert rejects.count("\n") == 1 and f"the target takes fewer than {CONTEXT - 6}" in rejects
    assert whole.run().done_before == STAGES


def fill_context(whole: Whole, length: int) -> None:
    """Prompts of so many tokens: one a character."""
    rows = [{"prompt": f"{n} {task} ".ljust(length, "x"), "task": task} for n in range(12) for task in ("sum", "greet")]
    whole.log.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_prompt_is_beyond_the_context(whole: Whole) -> None:
    fill_context(whole, CONTEXT)
    assert "the target takes fewer than" in whole.run().sentence


def test_every_prompt_fills_the_context(whole: Whole) -> None:
    """They can be answered in a few tokens, which is too few to measure."""
    fill_context(whole, CONTEXT - 8)
    said = whole.run().sentence
    assert "No prompt of task `greet` can be used (at most 151 tokens fit beside the answer)" in said
    assert len(read_answers(whole.layout.answers)) == 24


def cut_weights(target: Path) -> None:
    path = target / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_tokenizer(target: Path) -> None:
    for path in target.glob("token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "word"), [(cut_weights, "model.safetensors"), (no_tokenizer, "tokenizer")], ids=["weights", "tokenizer"]
)
def test_a_target_that_does_not_load(whole: Whole, tmp_path: Path, spoil: Callable[[Path], None], word: str) -> None:
    whole.target = write_target(tmp_path / "spoilt")
    spoil(whole.target)
    assert word in whole.run().sentence
    whole.target = write_target(tmp_path / "spoilt")
    assert whole.run().code == 0


@pytest.mark.slow
def test_killed_between_any_two_stages(whole: Whole) -> None:
    for finished, when in enumerate([f"{stage}: done in" for stage in STAGES]):
        arguments = map(str, (whole.target, whole.log, whole.out, whole.url, when))
        ran = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=300)
        assert ran.returncode == -signal.SIGKILL, (when, ran.stderr)
        assert (whole.layout.stage(STAGES[finished]) / "stage.done").exists()
    ended = whole.run()
    assert ended.code == 0 and ended.done_before == STAGES and whole.aligned == []
    assert load_pool(whole.out, target=whole.target).tasks
