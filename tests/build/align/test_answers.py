from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.align import AlignError
from sglang_hetero_spec.build.align.answers import (
    Row,
    fit_context,
    of_task,
    read_answers,
    relabel,
    split_given,
    split_rows,
)
from sglang_hetero_spec.errors import HeteroError
from tests.build.align.toy import write_answers

ROWS = [Row(f"{task}{i}", task, (1, 2, 3), (4, 5), "x", "length") for task in ("a", "b") for i in range(40)]


def test_a_torn_last_line_and_repeated_ids_are_left_out(tmp_path: Path) -> None:
    path = write_answers(tmp_path / "a.jsonl", [*ROWS[:3], ROWS[0]])
    whole = path.read_bytes()
    path.write_bytes(whole + whole.split(b"\n")[0][:30])
    assert read_answers(path) == tuple(ROWS[:3])


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', '{"id": "x", "prompt_ids": [1.5], "output_ids": [1]}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(HeteroError, match="line 1"):
        read_answers(path)


def test_a_task_holds_out_the_same_answers_for_its_own_drafter_and_the_general_one() -> None:
    everything = split_rows(ROWS, 0.2, 256)
    alone = split_rows([row for row in ROWS if row.task == "a"], 0.2, 256)
    assert {row for row in everything.dev if row.task == "a"} == set(alone.dev)
    assert {row for row in everything.test if row.task == "a"} == set(alone.test)
    assert len(alone.dev) == len(alone.test) == 4


def test_parts_share_no_prompt() -> None:
    split = split_rows(ROWS, 0.1, 3)
    parts = [{row.id for row in part} for part in (split.train, split.dev, split.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(ROWS)
    assert len(parts[1] | parts[2]) == 6  # at most 3 of each task


def test_given_heldout_answers_are_never_trained_on() -> None:
    split = split_given(ROWS, ROWS[:5])
    assert {row.id for row in (*split.dev, *split.test)} == {row.id for row in ROWS[:5]}
    assert not {row.id for row in ROWS[:5]} & {row.id for row in split.train}


def test_two_answers_are_enough_and_one_is_not() -> None:
    split = split_rows(ROWS[:2], 0.1, 256)
    assert len(split.train) == len(split.dev) == 1
    assert split.test == split.dev
    with pytest.raises(AlignError, match="too few"):
        split_rows(ROWS[:1], 0.1, 256)


def test_an_unknown_task_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="`c`; the tasks in it are a, b"):
        of_task(ROWS, "c", tmp_path)
    assert len(of_task(ROWS, None, tmp_path)) == len(ROWS)


def test_partition_may_name_the_tasks_anew() -> None:
    assert {row.task for row in relabel(ROWS, {"a0": "z", "b1": None})} == {"z", None}


def test_long_rows_are_cut_at_the_context() -> None:
    assert [len(row) for row in fit_context(ROWS[:1], 4)] == [4]
    assert fit_context(ROWS, 3) == ()
