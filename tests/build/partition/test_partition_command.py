"""`hetero-spec partition`: the files it writes, the same each time, and what bad input gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.build.partition import partition_log
from sglang_hetero_spec.build.prompts import plain_prompt, read_prompts
from sglang_hetero_spec.cli import main
from sglang_hetero_spec.router.schema import is_class_name
from tests.build.partition.data import toy_answers, toy_tasks

FILES = ("prompts.jsonl", "tasks.json", "partition.json", "duplicates.jsonl", "rejects.jsonl")


def write_log(path: Path, per_task: int = 20, more: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    prompts, tasks = toy_tasks(per_task)
    rows = [json.dumps({"prompt": prompt, "task": task}) for prompt, task in zip(prompts, tasks, strict=True)]
    path.write_text("\n".join([*rows, *more]) + "\n")
    return prompts, tasks


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["partition", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    prompts, tasks = write_log(log, more=('{"prompt": 1}', json.dumps({"prompt": toy_tasks(20)[0][0], "task": "code"})))
    code, shown, notes = run(capsys, "--prompts", log, "--out", out, "--seed", 3, "--json")
    assert code == 0
    told = json.loads(shown)
    assert (told["n_tasks"], told["prompts"], told["rejects"], told["exact_duplicates"]) == (4, 80, 1, 1)
    assert told["adjusted_rand_index"] > 0.9
    assert "line 81: the prompt is not a text" in notes and "1 bad line was left out" in notes
    written = read_prompts(out / "prompts.jsonl")
    assert [prompt.text for prompt in written] == prompts
    assert [prompt.label for prompt in written] == tasks
    found: list[dict[str, Any]] = json.loads((out / "tasks.json").read_text())
    assert {prompt.task for prompt in written} - {None} == {task["id"] for task in found}
    assert sum(task["requests"] for task in found) == 81
    for task in found:
        assert is_class_name(task["id"]) and task["name"] and task["top_terms"]
        assert task["size"] == sum(prompt.task == task["id"] for prompt in written)
        assert len(task["examples"]) == 3 and set(task["examples"]) <= set(prompts)
    assert json.loads((out / "partition.json").read_text()).items() <= {**told, "tasks": 0}.items()
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_the_same_in_other_processes(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    write_log(log, per_task=15)
    found = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        command = [
            sys.executable,
            "-m",
            "sglang_hetero_spec.cli",
            "partition",
            "--prompts",
            str(log),
            "--out",
            str(out),
        ]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        found.append([(out / name).read_bytes() for name in FILES])
    assert found[0] == found[1]


def test_answers_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out, answers = tmp_path / "log.jsonl", tmp_path / "out", tmp_path / "answers.jsonl"
    prompts, tasks = write_log(log)
    rows = [
        {"id": plain_prompt(prompt).id, "prompt_ids": [1], "output_ids": [2], "text": text}
        | {"finish_reason": "stop", "task": None}
        for prompt, text in zip(prompts, toy_answers(tasks), strict=True)
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    assert run(capsys, "--prompts", log, "--out", out, "--answers", answers)[0] == 0
    assert json.loads((out / "partition.json").read_text())["with_answers"] is True
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows[20:]))
    code, _, notes = run(capsys, "--prompts", log, "--out", out, "--answers", answers)
    assert code == 2 and "answers 60 of 80 prompts" in notes
    assert not (out / "partition.json").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a\nb\nc\n", "3 different prompts are too few"),
        (b"Say hello.\n" * 50, "all 50 prompts are the same"),
        (bytes(range(256)) * 40, "is a binary file"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(content)
    code, shown, notes = run(capsys, "--prompts", log, "--out", tmp_path / "out")
    assert (code, shown) == (2, "")
    assert sentence in notes and notes.count("\n") == 1
    assert not (tmp_path / "out" / "prompts.jsonl").exists()


def test_rejects_are_written_even_if_nothing_else_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("no\n{}\n")
    code, _, notes = run(capsys, "--prompts", log, "--out", tmp_path / "out")
    assert code == 2 and "2 rejected" in notes
    rows = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == [1, 2]


def test_one_task_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    log.write_text("\n".join(toy_tasks(20)[0][:40]) + "\n")
    code, shown, notes = run(capsys, "--prompts", log, "--out", tmp_path / "out", "--n-tasks", 1)
    assert code == 0 and "form one task" in notes and "1 task" in shown


def test_two_at_once_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    write_log(log)
    with directory_lock(tmp_path / "out", "partition", "hetero-spec partition"):
        code, _, notes = run(capsys, "--prompts", log, "--out", tmp_path / "out")
    assert code == 2 and "is in use by" in notes


def test_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    write_log(log)
    partition_log(log, tmp_path / "out")
    before = (tmp_path / "out" / "prompts.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, notes = run(capsys, "--prompts", log, "--out", tmp_path / "out")
    assert code == 2 and "cannot be written (No space left on device)" in notes
    assert (tmp_path / "out" / "prompts.jsonl").read_bytes() == before
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.parametrize("arguments", [("--seed", "-1"), ("--seed", "x"), ("--n-tasks", "0"), ("--max-tasks", "a")])
def test_bad_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str]) -> None:
    code, _, notes = run(capsys, "--prompts", tmp_path / "x", "--out", tmp_path / "out", *arguments)
    assert code == 2 and notes.count("\n") == 1
