"""The demo's data: made the same way each time, held out for good, and right."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
from pathlib import Path

import pytest

from sglang_hetero_spec.demo.data import TASKS, Example, Sources, examples, find_sources, is_heldout, training_prompts

NO_FOLDER = Sources(None)


def _some(task: str, count: int = 60, *, heldout: bool = False, seed: int = 0) -> list[Example]:
    return examples(task, count, heldout=heldout, sources=NO_FOLDER, seed=seed)


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_examples(task: str) -> None:
    assert _some(task) == _some(task)
    assert _some(task, seed=1) != _some(task)


@pytest.mark.parametrize("task", TASKS)
def test_training_and_heldout_contents_are_disjoint(task: str) -> None:
    train, heldout = _some(task, 300), _some(task, 40, heldout=True)
    assert not {e.key for e in train} & {e.key for e in heldout}
    assert not {e.prompt for e in train} & {e.prompt for e in heldout}
    assert all(is_heldout(e.key) for e in heldout) and not any(is_heldout(e.key) for e in train)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_different_and_end_alike(task: str) -> None:
    made = _some(task, 100)
    assert len({e.prompt for e in made}) == 100
    for e in made:
        assert e.task == task and e.prompt.endswith("\n\n") and "\n\n" not in e.prompt[:-2]
        assert e.answer == e.answer.strip() and len(e.answer) > 10


def test_json_answers_are_objects_of_the_text() -> None:
    """What a place or a record holds is said in the prompt; records say their type first."""
    for e in _some("json", 200):
        record = json.loads(e.answer)
        if "type" not in record:
            assert record["name"] in e.prompt
        else:
            assert next(iter(record)) == "type"
            numbers = re.findall(r"\d+", json.dumps(record))
            assert all(n == "0" or n in e.prompt for n in numbers if n != "00"), e.prompt


def test_sql_answers_run_on_their_own_schema() -> None:
    for e in _some("sql", 200):
        tables = re.findall(r"(\w+)\((id, [^)]*)\)", e.prompt) or re.findall(
            r"^(\w+): (id, .*)$", e.prompt, re.MULTILINE
        )
        assert len(tables) == 2, e.prompt
        database = sqlite3.connect(":memory:")
        for name, columns in tables:
            database.execute(f"CREATE TABLE {name} ({columns})")
        database.execute(e.answer)


def test_python_answers_parse_and_carry_their_docstring() -> None:
    for e in _some("python", 150):
        function = ast.parse(e.answer).body[0]
        assert isinstance(function, ast.FunctionDef) and function.name in e.prompt
        assert (ast.get_docstring(function) or "") in e.prompt


def test_worked_answers_are_right() -> None:
    for e in _some("math", 150):
        sums = re.findall(r"\$?(\d+) ([-+x/]) \$?(\d+) = \$?(\d+)", e.answer)
        does = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__, "/": int.__floordiv__}
        assert sums
        for left, op, right, result in sums:
            assert does[op](int(left), int(right)) == int(result), e.answer
        assert e.answer.splitlines()[-1] == f"Answer: {sums[-1][3]}"


def test_translations_keep_their_sentences_and_cases() -> None:
    for e in _some("translate", 150):
        assert e.answer.count(".") == e.prompt.splitlines()[1].count(".")
        assert not re.search(r"\b(den|einen) (Frau|Lampe|Buch|Auto|Haus|Blume|Tasse)\b", e.answer)


def test_missing_folder_is_said_and_not_fatal(tmp_path: Path) -> None:
    sources, note = find_sources(tmp_path / "nowhere")
    assert sources.data is None and note and "\n" not in note
    sources, note = find_sources(tmp_path)
    assert note and "gsm8k_train.jsonl" in note and examples("math", 5, heldout=False, sources=sources)


def test_real_text_is_used_where_it_is(tmp_path: Path) -> None:
    question = "A unicorn has 3 horns and finds 4 more behind the old barn. How many horns does it have now?"
    answer = "It starts with 3 horns.\nThen it has 3 + 4 = <<3+4=7>>7 horns altogether in the end.\n#### 7"
    row = {"question": question, "answer": answer}
    (tmp_path / "gsm8k_train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    sources, _ = find_sources(tmp_path)
    side = is_heldout(f"math:{question}")
    found = [e for e in examples("math", 30, heldout=side, sources=sources) if "unicorn" in e.prompt]
    assert found and found[0].answer.endswith("3 + 4 = 7 horns altogether in the end.\nAnswer: 7")


def test_too_many_prompts_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        _some("scarce", 3)


@pytest.fixture(autouse=True)
def _scarce(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "too_many" in request.node.name:
        monkeypatch.setitem(TASKS, "scarce", lambda rng, sources: iter([Example("scarce", "p\n\n", "a", "k")]))


def test_router_prompts_are_from_the_training_side() -> None:
    prompts, tasks = training_prompts(None, per_task=20)
    assert len(prompts) == len(tasks) == 20 * len(TASKS) and set(tasks) == set(TASKS)
    heldout = {e.prompt for task in TASKS for e in _some(task, 40, heldout=True)}
    assert not heldout & set(prompts)
