"""`profile` with an engine that only counts: order, resuming, what is left out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.locks import LockedError, directory_lock
from sglang_hetero_spec.build.profile.measure import Profiled, ProfileOptions, profile
from sglang_hetero_spec.build.profile.records import ProfileError, Settings, read_profile
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from sglang_hetero_spec.build.regenerate.answers import Answer, to_line
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.serving.errors import ServingError
from tests.build.profile.conftest import Files
from tests.build.profile.fake_engine import FakeEngine, Killed
from tests.support.manifest import write_manifest

MODELS = Path(__file__).parents[2] / "models"
DEMO = Path(__file__).parents[3] / "sglang_hetero_spec" / "demo" / "assets" / "target"
OPTIONS = ProfileOptions(concurrency=(1, 4), num_prompts=3, max_new_tokens=17, passes=2, shapes=(Settings(3, 1, 4),))
PASSES = 2 * 2 * 2 * 3  # passes, tasks, concurrencies, candidates with `none`


def measure(files: Files, out: Path, engine: FakeEngine, options: ProfileOptions = OPTIONS, **more: Any) -> Profiled:
    given = {"candidates": [str(files.drafters)], "prompts": files.prompts, **more}
    answers = given.pop("answers", None)
    return profile(files.target, *given.values(), out, options, answers=answers, start=engine.start)


def test_every_candidate_on_every_task_and_none(files: Files, tmp_path: Path) -> None:
    engine, out = FakeEngine(), tmp_path / "profile.jsonl"
    found = measure(files, out, engine)
    assert len(found.records) == PASSES and found.left_out == () and found.kept == 0
    assert found.notes == ("Task `t1` has 2 prompts, fewer than --num-prompts 3.",)
    records = read_profile(out)
    assert {(r.drafter, r.task, r.concurrency) for r in records} == {
        (drafter, task, number) for drafter in ("none", "a", "b") for task in ("t0", "t1") for number in (1, 4)
    }
    one = next(r for r in records if (r.drafter, r.task, r.concurrency) == ("a", "t0", 4))
    # 4 requests a pass (the 3 prompts and the first again), 17 tokens each: 16 in 6 steps of 3.
    assert (one.requests, one.completion_tokens, one.verify_steps, one.proposed_drafts) == (8, 136, 48, 144)
    assert one.correct_by_position == (48, 48, 0) and one.verify_forwards == 12
    assert one.draft_seconds == pytest.approx(0.003 * 12) and one.verify_seconds == pytest.approx(0.01 * 12)
    assert one.seconds == pytest.approx(0.004 + 0.013 * 12)
    assert [path.name for path in tmp_path.iterdir()] == ["profile.jsonl"]
    assert engine.settings is not None and engine.settings.busiest == 4


def test_candidates_alternate_there_and_back_again_after_a_warm_up(files: Files, tmp_path: Path) -> None:
    engine = FakeEngine()
    measure(files, tmp_path / "p.jsonl", engine)
    warm, measured = engine.runs[:6], engine.runs[6:]
    assert {(name, concurrency) for name, _, concurrency, _ in warm} == {
        (name, concurrency) for name in ("none", "1.a", "2.b") for concurrency in (1, 4)
    }
    assert [tokens for *_, tokens in warm] == [17] * 6
    names = [name for name, *_ in measured]
    assert names[:6] == ["none", "1.a", "2.b"] * 2
    assert names[PASSES // 2 :][:6] == ["2.b", "1.a", "none"] * 2
    assert engine.starts == [["none", "1.a", "2.b"]]


@pytest.mark.parametrize("passes", [0, 1, 11, 23])
def test_a_killed_run_goes_on_without_repeating_a_pass(files: Files, tmp_path: Path, passes: int) -> None:
    whole = measure(files, tmp_path / "whole" / "p.jsonl", FakeEngine())
    out = tmp_path / "p.jsonl"
    first = FakeEngine(passes=6 + passes)  # six to warm up
    with pytest.raises(Killed):
        measure(files, out, first)
    assert not out.exists()
    with (tmp_path / "p.jsonl.passes").open("ab") as file:
        file.write(b'{"drafter":"a","ta')  # torn
    second = FakeEngine()
    found = measure(files, out, second)
    assert found.kept == passes and len(second.runs) == 6 + PASSES - passes
    assert sorted(map(str, found.records)) == sorted(map(str, whole.records))


def test_all_passes_were_measured_but_the_file_was_not_written(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    measure(files, out, FakeEngine())
    shutil.copy(out, tmp_path / "kept")
    with pytest.raises(Killed):
        measure(files, tmp_path / "q.jsonl", FakeEngine(passes=7))
    (tmp_path / "kept").rename(tmp_path / "q.jsonl.passes")
    engine = FakeEngine()
    found = measure(files, tmp_path / "q.jsonl", engine)
    assert engine.starts == [] and found.kept == len(found.records) == PASSES


def test_a_new_candidate_joins_what_was_begun(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    with pytest.raises(Killed):
        measure(files, out, FakeEngine(passes=4 + 10), candidates=[str(files.drafters / "a")])
    found = measure(files, out, FakeEngine())
    assert found.kept == 10 and len(found.records) == PASSES


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_new_tokens": 18}, "begun with --max-new-tokens 17"),
        ({"num_prompts": 2}, "begun with other prompts"),
        ({"flags": ("--tp-size", "2")}, "begun with the SGLang flags ``"),
    ],
)
def test_what_was_begun_otherwise_is_refused(files: Files, tmp_path: Path, change: dict, says: str) -> None:
    out = tmp_path / "p.jsonl"
    with pytest.raises(Killed):
        measure(files, out, FakeEngine(passes=10))
    with pytest.raises(ProfileError, match=says):
        measure(files, out, FakeEngine(), dataclasses.replace(OPTIONS, **change))
    with pytest.raises(ProfileError, match="begun with another checkpoint as `a`"):
        measure(files, out, FakeEngine(), candidates=[f"a={files.drafters / 'b'}"])
    (tmp_path / "p.jsonl.plan").unlink()
    with pytest.raises(ProfileError, match=r"nothing says how they were measured \(p.jsonl.plan is missing"):
        measure(files, out, FakeEngine())


def test_a_candidate_that_does_not_load_is_left_out_and_the_rest_goes_on(files: Files, tmp_path: Path) -> None:
    engine = FakeEngine(broken=["a"])
    found = measure(files, tmp_path / "p.jsonl", engine)
    assert engine.starts == [["none", "1.a", "2.b"], ["none", "2.b"]]
    assert [(item.candidate.drafter, item.reason) for item in found.left_out] == [("a", "it does not load; mend it.")]
    assert {record.drafter for record in found.records} == {"none", "b"}


def test_a_candidate_with_another_vocabulary_is_measured_in_both_modes(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(files.drafters / "a", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    *_, first, second = vocabulary  # the first ones are special tokens
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    # Who says that it is the target's own is not believed.
    entry = {"name": "liar", "kind": "standalone", "path": str(other), "external": True, "num_steps": 3}
    write_manifest(tmp_path / "pool", [entry], fallback="liar")
    engine = FakeEngine()
    given = [str(other), str(files.drafters), str(tmp_path / "pool")]
    found = measure(files, tmp_path / "p.jsonl", engine, candidates=given)
    assert engine.starts == [["none", "1.other", "2.other", "3.a", "4.b"]]
    modes = {(record.drafter, str(record.settings)): record.vocab for record in found.records}
    assert modes == {
        ("other", "3/1/4"): "tli", ("other", "3/1/7"): "slem", ("a", "3/1/4"): "shared", ("b", "3/1/4"): "shared",
        ("none", "0/1/1"): "shared",
    }  # fmt: skip
    (left_out,) = found.left_out
    assert left_out.candidate.drafter == "liar"
    assert left_out.reason.startswith('`vocab` is "shared", but in ') and "2 of " in left_out.reason


def test_the_targets_answers_decide_what_auto_is(files: Files, tmp_path: Path) -> None:
    """Half of the vocabulary is shared: too little to try `tli`, unless the target writes nothing else."""
    other = tmp_path / "other"
    shutil.copytree(files.drafters / "a", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    kept = dict(list(tokenizer["model"]["vocab"].items())[:130])
    tokenizer["model"]["vocab"] = kept
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes(to_line(Answer("a", (0, 5), (7, 8, 9, 1), "", "stop", "t0")))
    modes = []
    for number, given in enumerate((None, answers)):
        found = measure(files, tmp_path / f"{number}.jsonl", FakeEngine(), candidates=[str(other)], answers=given)
        modes.append({record.vocab for record in found.records if record.drafter == "other"})
    assert modes == [{"slem"}, {"slem", "tli"}]


def test_by_text_a_chain_is_as_long_as_the_drafters_tokens_need(tmp_path: Path) -> None:
    """The demo's target and two real vocabularies: words of about its own length, and bytes."""
    entries = [{"name": "given", "kind": "standalone", "path": str(MODELS / "bytes"), "external": True}]
    write_manifest(tmp_path / "pool", [entries[0] | {"num_steps": 6, "vocab": "slem"}], fallback="given")
    write_prompts(tmp_path / "prompts.jsonl", [plain_prompt("Write a function that adds two numbers.\n\n", task="t0")])
    given = [str(MODELS / "bpe"), str(MODELS / "bytes"), str(tmp_path / "pool")]
    found = profile(
        DEMO, given, tmp_path / "prompts.jsonl", tmp_path / "p.jsonl", OPTIONS, start=FakeEngine(tokens=17).start
    )
    shapes = {(record.drafter, record.vocab): str(record.settings) for record in found.records}
    assert shapes == {
        ("none", "shared"): "0/1/1", ("bpe", "tli"): "3/1/4", ("bpe", "slem"): "3/1/7", ("bytes", "slem"): "10/1/7",
        ("given", "slem"): "6/1/7",
    }  # fmt: skip
    trees = dataclasses.replace(OPTIONS, shapes=(Settings(3, 2, 6),))
    engine = FakeEngine(tokens=17)
    found = profile(DEMO, given[:1], tmp_path / "prompts.jsonl", tmp_path / "t.jsonl", trees, start=engine.start)
    assert {(record.drafter, record.vocab) for record in found.records} == {("none", "shared"), ("bpe", "tli")}


def test_no_candidate_left_is_an_error_with_the_first_reason(files: Files, tmp_path: Path) -> None:
    given = [str(files.drafters / name) for name in "ba"]
    with pytest.raises(ProfileError, match=r"No candidate can be served \(2 left out\).*`b \(3/1/4\)`: it does not"):
        measure(files, tmp_path / "p.jsonl", FakeEngine(broken=["a", "b"]), candidates=given)


def test_a_server_that_fails_keeps_what_was_measured(files: Files, tmp_path: Path) -> None:
    class Failing(FakeEngine):
        def run(self, *args: Any) -> Any:
            try:
                return super().run(*args)
            except Killed:
                raise ServingError("SGLang ended.") from None

    with pytest.raises(ServingError):
        measure(files, tmp_path / "p.jsonl", Failing(passes=13))
    assert len((tmp_path / "p.jsonl.passes").read_text().splitlines()) == 7


def test_answers_that_end_at_their_first_token(files: Files, tmp_path: Path) -> None:
    with pytest.raises(HeteroError, match="no task is left"):
        measure(files, tmp_path / "p.jsonl", FakeEngine(tokens=1))


def test_two_at_once_and_bad_arguments(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    with directory_lock(tmp_path, out.name, "hetero-spec profile"), pytest.raises(LockedError, match="in use by"):
        measure(files, out, FakeEngine())
    with pytest.raises(ProfileError, match="is a folder"):
        measure(files, tmp_path, FakeEngine())
    with pytest.raises(ProfileError, match="`--speculative-algorithm` is set by the profile itself"):
        measure(files, out, FakeEngine(), dataclasses.replace(OPTIONS, flags=("--speculative-algorithm=NGRAM",)))
    with pytest.raises(ProfileError, match="leaves no room for a prompt in the target's context of 256 tokens"):
        measure(files, out, FakeEngine(), dataclasses.replace(OPTIONS, max_new_tokens=255))
    with pytest.raises(HeteroError, match=r"has no config\.json"):
        profile(tmp_path / "nowhere", [str(files.drafters)], files.prompts, out, start=FakeEngine().start)
