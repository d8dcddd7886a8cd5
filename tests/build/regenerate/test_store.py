"""Answers on disk: what a kill, a full disk or a stray line does to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sglang_hetero_spec.build.prompts import Prompt, plain_prompt
from sglang_hetero_spec.build.regenerate import Answer, RegenerateError, RegenerateStopped, read_answers
from sglang_hetero_spec.build.regenerate.answers import to_line
from sglang_hetero_spec.build.regenerate.store import AnswerStore

PROMPTS = tuple(plain_prompt(f"prompt {i}", task=str(i % 2)) for i in range(5))


def answer(prompt: Prompt, task: str | None = None) -> Answer:
    return Answer(prompt.id, (1, 2), (3, 4, 5), f"line\n\u2028\x85 of {prompt.text}", "stop", task)


@pytest.fixture
def part(out: Path) -> Path:
    return out.with_name("answers.jsonl.part")


def test_finished_in_the_order_of_the_prompts_with_their_tasks(out: Path, part: Path) -> None:
    with AnswerStore(out) as store:
        for prompt in PROMPTS[::-1]:
            store.add(answer(prompt, "old"))
        assert part.exists() and not out.exists()
        store.finish(PROMPTS)
    assert read_answers(out) == tuple(answer(prompt, prompt.task) for prompt in PROMPTS)
    assert not part.exists()


@pytest.mark.parametrize("lost", [1, 7, 60])
def test_a_torn_last_line_is_dropped(out: Path, part: Path, lost: int) -> None:
    lines = [to_line(answer(prompt)) for prompt in PROMPTS[:3]]
    part.write_bytes(b"".join(lines)[:-lost])
    with AnswerStore(out) as store:
        assert [prompt.id in store for prompt in PROMPTS] == [True, True, False, False, False]
        store.add(answer(PROMPTS[3]))
    assert part.read_bytes() == b"".join(lines[:2]) + to_line(answer(PROMPTS[3]))


def test_a_kill_between_the_rename_and_the_end_loses_nothing(out: Path, part: Path) -> None:
    lines = [to_line(answer(prompt, prompt.task)) for prompt in PROMPTS]
    out.write_bytes(b"".join(lines[:3]))
    part.write_bytes(b"".join(lines[2:]))
    out.with_name("answers.jsonl.sorted.part").write_bytes(b"half a li")
    with AnswerStore(out) as store:
        assert not store.is_finished(PROMPTS)
        store.finish(PROMPTS)
        assert AnswerStore(out).is_finished(PROMPTS)
    assert out.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("bad", [b"{}\n", b"\n", b"\0" * 9 + b"\n", b'{"id": 3}\n', b"\xff\xfe\n"])
def test_a_line_that_is_no_answer_is_named(out: Path, part: Path, bad: bytes) -> None:
    part.write_bytes(to_line(answer(PROMPTS[0])) + bad + to_line(answer(PROMPTS[1])))
    with pytest.raises(RegenerateError, match=r"answers.jsonl.part, line 2 is not an answer \(.*remove that line"):
        AnswerStore(out)


def test_a_full_disk_leaves_whole_lines(out: Path, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [len(to_line(answer(PROMPTS[0]))) + 20]

    def write(file: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, data[: room[0]])
        room[0] -= done
        return done

    with AnswerStore(out) as store:
        monkeypatch.setattr(os, "write", write)
        store.add(answer(PROMPTS[0]))
        with pytest.raises(RegenerateStopped, match=r"cannot be written \(No space left on device\); free some space"):
            store.add(answer(PROMPTS[1]))
        assert part.read_bytes() == to_line(answer(PROMPTS[0]))
        assert PROMPTS[1].id not in store
        monkeypatch.undo()
        store.add(answer(PROMPTS[2]))
        store.finish(PROMPTS)
    assert [item.id for item in read_answers(out)] == [PROMPTS[0].id, PROMPTS[2].id]


def test_a_disk_that_fills_up_at_the_end_keeps_the_part(out: Path, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with AnswerStore(out) as store:
        store.add(answer(PROMPTS[0]))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RegenerateStopped, match="No space left"):
            store.finish(PROMPTS)
    assert [path.name for path in out.parent.iterdir()] == [part.name]
    assert part.read_bytes() == to_line(answer(PROMPTS[0]))


def test_reading_what_is_not_there(out: Path) -> None:
    with pytest.raises(RegenerateError, match="run `regenerate` first"):
        read_answers(out)
