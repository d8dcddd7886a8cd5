"""The second target of the demo: what is made in which order, whose answers teach whom, and the two pools."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.drafters import Alignments, Job
from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.build.prompts import plain_prompt, read_prompts, write_prompts
from sglang_hetero_spec.build.regenerate import Answer, read_answers
from sglang_hetero_spec.build.regenerate.answers import to_line
from sglang_hetero_spec.demo import two_targets
from sglang_hetero_spec.demo.make import main
from sglang_hetero_spec.demo.shipped import find_shipped
from sglang_hetero_spec.demo.two_targets import Bench, TwoSettings, add_to_pool, join_answers, write_small_pool
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import load_pool

PROMPTS = [plain_prompt(f"prompt {number}", task="sql") for number in range(12)]
HELDOUT = PROMPTS[:2]


def write_answers(path: Path, ids: Sequence[str], token: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(to_line(Answer(id, (1,), (token,), "x", "stop", "sql")) for id in ids))


class Makers:
    """`align` and `regenerate` that write down what they were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failing = ""
        monkeypatch.setattr(two_targets, "align_all", self.align_all)
        monkeypatch.setattr(two_targets, "regenerate", self.regenerate)

    def align_all(self, shared: Alignments, jobs: Sequence[Job], say: object) -> list[Any]:
        (job,) = jobs
        learned = {answer.id[0]: answer.output_ids for answer in read_answers(shared.split / "train.jsonl")}
        base = shared.base and Path(shared.base).name
        self.asked.append((job.name, Path(shared.target).name, base, sorted(set(learned.values()))))
        if job.name == self.failing:
            return [two_targets_not_made(job.name)]
        job.out.mkdir(parents=True)
        (job.out / "model.safetensors").write_text(job.name)
        return []

    def regenerate(self, target: str, prompts: str, out: str, options: object) -> None:
        asked = [prompt.id for prompt in read_prompts(prompts)]
        self.asked.append(("answers", Path(target).name, len(asked)))
        write_answers(Path(out), asked, token=2)


def two_targets_not_made(name: str) -> Any:
    from sglang_hetero_spec.build.drafters import NotMade

    return NotMade(name, "no room.")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    split, prompts = tmp_path / "split", tmp_path / "prompts.jsonl"
    write_answers(split / "train.jsonl", [prompt.id for prompt in PROMPTS[2:]], token=1)
    write_answers(split / "heldout.jsonl", [prompt.id for prompt in HELDOUT], token=1)
    write_prompts(split / "prompts.jsonl", HELDOUT)
    write_prompts(prompts, PROMPTS)
    return Bench(tmp_path / "target", split, prompts, tmp_path / "two", TwoSettings(answers=5), lambda _: None)


def test_everything_is_made_once_and_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = Makers(monkeypatch)
    bench.make()
    assert makers.asked == [
        ("small", "target", None, [(1,)]),
        ("answers", "small-target", 2 + 5),
        ("first", "target", None, [(1,)]),
        ("both", "target", "first", [(1,), (2,)]),
    ]
    heldout = {answer.id for answer in read_answers(bench.small_split / "heldout.jsonl")}
    train = {answer.id for answer in read_answers(bench.small_split / "train.jsonl")}
    assert heldout == {prompt.id for prompt in HELDOUT} and len(train) == 5 and not heldout & train
    makers.asked.clear()
    bench.make()
    assert makers.asked == []


def test_what_cannot_be_made_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = Makers(monkeypatch)
    makers.failing = "first"
    with pytest.raises(HeteroError, match="`first` could not be aligned: no room"):
        bench.make()


def test_answers_of_two_targets_to_one_prompt_stay_apart(bench: Bench, tmp_path: Path) -> None:
    join_answers(tmp_path / "joined", {"a": bench.split, "b": bench.split})
    ids = [answer.id for answer in read_answers(tmp_path / "joined" / "heldout.jsonl")]
    assert sorted(ids) == sorted(f"{mark}{prompt.id}" for mark in "ab" for prompt in HELDOUT)


def chosen(thresholds: tuple[float, ...], num_steps: int = 4) -> Candidate:
    settings = Settings(num_steps, 1, num_steps + 1)
    extra = (("exits", (1, 2, 3)), ("thresholds", thresholds))
    return Candidate("both-at1", settings, Path("/made/both"), "sorted", takes_shapes=True, extra=extra)


def test_each_pool_has_thresholds_of_its_own(tmp_path: Path) -> None:
    """Written where the demo's files lie as they ship; an entry that was there is replaced, and nothing else."""
    import shutil

    out = tmp_path / "out"
    shutil.copytree(find_shipped().root, out)
    before = json.loads((out / "pool/pool.json").read_text())
    add_to_pool(out / "pool", out / "target", chosen((0.25, 1.0), num_steps=6))
    write_small_pool(out / "small/pool", out / "small/target", out / "pool", chosen((0.75, 0.5)))
    after = json.loads((out / "pool/pool.json").read_text())
    assert [d for d in after["drafters"] if d["name"] != "both"] == [
        d for d in before["drafters"] if d["name"] != "both"
    ]
    assert {key: value for key, value in after.items() if key != "drafters"} == {
        key: value for key, value in before.items() if key != "drafters"
    }
    first = load_pool(out / "pool", target=out / "target").drafter("both")
    second = load_pool(out / "small/pool", target=out / "small/target").drafter("both")
    assert (first.thresholds, first.num_steps, second.thresholds, second.num_steps) == ((0.25, 1.0), 6, (0.75, 0.5), 4)
    assert first.path == second.path == out.resolve() / "pool/drafters/both"


def test_make_makes_the_second_target_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The steps of `demo.make`, each replaced by its name."""
    from types import SimpleNamespace

    done: list[str] = []

    def step(module: str, name: str, result: object = None) -> None:
        __import__(module)
        monkeypatch.setattr(sys.modules[module], name, lambda *_, **__: done.append(name) or result)

    package = "sglang_hetero_spec"
    for name in ("prepare", "train_target", "write_prompts"):
        from sglang_hetero_spec.demo.train.stages import Workshop

        monkeypatch.setattr(Workshop, name, lambda _, name=name: done.append(name))
    step(f"{package}.build.pipeline", "build", SimpleNamespace(pool=SimpleNamespace(root=tmp_path / "pool")))
    step(f"{package}.demo.publish", "publish", {"heldout": {}})
    step(f"{package}.demo.kinds", "add_kinds")
    step(f"{package}.demo.two_targets", "add_second_target")
    assert main(["--out", str(tmp_path / "out"), "--quick"]) == 0
    assert done[-4:] == ["build", "publish", "add_kinds", "add_second_target"] and done[1] == "train_target"
