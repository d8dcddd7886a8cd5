"""Which prompts are sent, in which order, how long."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sglang_hetero_spec.bench.prompt_source import Source, demo_source, file_source
from sglang_hetero_spec.bench.workload import NO_TASK, Workload, make_workload
from sglang_hetero_spec.build.prompts import LogError, Prompt, plain_prompt, write_prompts
from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.demo.shipped import find_shipped


class Words:
    """A token a word."""

    chat_template = None

    def __call__(self, text: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[sum(map(ord, word)) for word in text.split()])


def prompts(task: str | None, number: int, words: int = 3) -> list[Prompt]:
    return [plain_prompt(f"{task} {' '.join([str(i)] * (words - 1))}", task, task) for i in range(number)]


SOURCE = Source("log", (*prompts("a", 4), *prompts("b", 2), *prompts("c", 1)))


def make(number: int = 4, lengths: tuple[int, ...] = (), room: int | None = 100, source: Source = SOURCE) -> Workload:
    return make_workload(source, Words(), number, lengths, room)


def texts(work: Workload) -> list[str]:
    return [item.body["text"] for item in work.items]


def test_tasks_in_turn_and_others_to_warm_up() -> None:
    work = make(5)
    assert texts(work) == ["a 0 0", "b 0 0", "c 0 0", "a 1 1", "a 2 2"]
    assert [item.body["text"] for item in work.warm_up] == ["a 3 3", "b 1 1"]
    assert work.tasks == {"a": 3, "b": 1, "c": 1} and work.labelled
    assert {item.tokens for item in work.items} == {3} and work.longest == 3


def test_a_log_without_tasks_keeps_its_order() -> None:
    work = make(3, source=Source("log", tuple(prompts(None, 5))))
    assert texts(work) == ["None 0 0", "None 1 1", "None 2 2"]
    assert work.tasks == {NO_TASK: 3} and not work.labelled


def test_another_prompt_is_another_workload() -> None:
    assert make(4).sha256 == make(4).sha256
    assert len({make(4).sha256, make(5).sha256, make(4, (7,)).sha256}) == 3


def test_too_few_prompts() -> None:
    with pytest.raises(UsageError, match="--num-prompts 6 is more than log has"):
        make(6)


def test_lengths_are_made_of_prompts_of_the_task() -> None:
    work = make(4, (2, 10, 40), room=40)
    assert [len(item.body["input_ids"]) for item in work.items] == [2, 10, 40, 2]
    assert [item.tokens for item in work.items] == [2, 10, 40, 2]
    own = Words()("b 0 0 b 1 1").input_ids
    assert set(work.items[1].body["input_ids"]) <= set(own)
    assert work.items[1].body["input_ids"][-3:] == Words()("b 0 0").input_ids, "the prompt itself comes last"


def test_longer_than_the_context() -> None:
    with pytest.raises(UsageError, match="Prompt 0 has 3 tokens, and the context leaves 2 beside the answer"):
        make(4, room=2)
    with pytest.raises(UsageError, match="Prompt 1 has 50 tokens"):
        make(4, (4, 50), room=49)
    assert len(make(4, room=3).items) == 4
    assert make(4, room=None).longest == 3


def test_the_demos_prompts_are_those_that_were_held_out() -> None:
    shipped = find_shipped()
    held_out = {json.loads(line)["prompt"] for line in (shipped.root / "heldout.jsonl").read_text().splitlines()}
    source = demo_source(shipped)
    assert {prompt.text for prompt in source.prompts} == held_out
    assert list(make(12, source=source, room=None).tasks.values()) == [2] * 6


def test_spec_bench_first_turns(tmp_path: Path) -> None:
    rows = [
        {"question_id": 1, "category": "writing", "turns": ["First.", "Second."]},
        {"question_id": 2, "category": "qa", "turns": ["Why?"], "reference": ["x"]},
    ]
    path = tmp_path / "question.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [(prompt.text, prompt.task) for prompt in file_source(path).prompts] == [
        ("First.", "writing"),
        ("Why?", "qa"),
    ]
    path.write_text(json.dumps(rows[0]) + '\n{"question_id": 3}')
    with pytest.raises(LogError, match="line 2, is not a question of Spec-Bench"):
        file_source(path)


def test_logs_and_prompts_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "one", "task": "a"}\n{"prompt": ""}\n{"prompt": "two"}\n')
    source = file_source(path)
    assert [(prompt.text, prompt.task) for prompt in source.prompts] == [("one", "a"), ("two", None)]
    assert source.notes[0].startswith(f"1 lines of {path} hold no prompt, such as line 2: ")
    write_prompts(path, [plain_prompt("three", "label", "found")])
    assert file_source(path).prompts[0].task == "found"


@pytest.mark.parametrize("data", [b"", b"\x00\x01\xff\x00" * 50])
def test_a_file_without_prompts(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(LogError) as refused:
        file_source(tmp_path / "p")
    assert "\n" not in str(refused.value)
    with pytest.raises(LogError):
        file_source(tmp_path / "missing")
