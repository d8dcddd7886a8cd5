"""One split for all: held-out prompts are never trained on, in every task some, chosen by content alone."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.build.align.answers import Row, Split, split_given, split_rows
from sglang_hetero_spec.build.align.answers import read_answers as read_rows
from sglang_hetero_spec.build.prompts import Prompt, plain_prompt, read_prompts
from sglang_hetero_spec.build.regenerate.answers import Answer, read_answers, to_line
from sglang_hetero_spec.build.split import heldout_ids, write_split


def prompts(count: int, tasks: tuple[str | None, ...]) -> list[Prompt]:
    return [plain_prompt(f"text {number}", task=tasks[number % len(tasks)]) for number in range(count)]


def parts(split: Split) -> tuple[tuple[Row, ...], ...]:
    return split.train, split.dev, split.test


def test_parts_are_disjoint_and_whole(tmp_path: Path) -> None:
    made = prompts(120, ("a", "b", None))
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes(b"".join(to_line(Answer(p.id, (1, 2), (3,), "x", "stop", "stale")) for p in made))
    write_split(tmp_path, made, answers, 0.1)
    train, heldout = read_answers(tmp_path / "train.jsonl"), read_answers(tmp_path / "heldout.jsonl")
    ids = {a.id for a in train}, {a.id for a in heldout}
    assert not ids[0] & ids[1] and ids[0] | ids[1] == {p.id for p in made}
    assert sorted(a.task or "" for a in heldout) == ["a"] * 4 + ["b"] * 4
    assert {p.id for p in read_prompts(tmp_path / "prompts.jsonl")} == ids[1]
    assert {a.task for a in train} == {"a", "b", None}


def test_a_prompts_side_does_not_depend_on_the_others() -> None:
    small = heldout_ids({f"{n:x}": "a" for n in range(200)}, 0.1)
    assert small == heldout_ids({f"{n:x}": "a" for n in reversed(range(200))}, 0.1)
    assert len(small) == 20


def test_an_alignment_by_itself_holds_out_what_a_build_does(tmp_path: Path) -> None:
    made = prompts(150, ("a", "b"))
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes(b"".join(to_line(Answer(p.id, (1, 2), (3,), "x", "stop", p.task)) for p in made))
    write_split(tmp_path, made, answers, 0.1)
    alone = split_rows(read_rows(answers), 0.1, 256)
    given = split_given(read_rows(tmp_path / "train.jsonl"), read_rows(tmp_path / "heldout.jsonl"))
    assert [{row.id for row in part} for part in parts(alone)] == [{row.id for row in part} for part in parts(given)]


def test_never_more_than_half() -> None:
    assert len(heldout_ids({"x": "a", "y": "a", "z": "a"}, 0.9)) == 1
    assert heldout_ids({"x": "a"}, 0.5) == frozenset()
