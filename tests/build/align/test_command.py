"""The command line: flags to a request, results to stdout, bad input to one sentence."""

from __future__ import annotations

import argparse
import errno
import json
import os
from pathlib import Path

import pytest

from sglang_hetero_spec import cli
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from sglang_hetero_spec.commands import align as command


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if command not in cli.COMMANDS:
        monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, command))


def parsed(*flags: str) -> argparse.Namespace:
    return cli.build_parser().parse_args(["align", "--target", "T", "--answers", "a.jsonl", "--out", "o", *flags])


def test_flags_become_settings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("tokens: 5\nloss: ce\n")
    found = command.request_of(
        parsed("--task", "x", "--config", str(tmp_path / "c.yaml"), "--tokens", "7", "--layers", "0,2", "--no-bf16",
               "--set", "patience=0", "--set", "shape=null")
    )  # fmt: skip
    s = found.settings
    assert (s.tokens, s.loss, s.layers, s.bf16, s.patience) == (7, "ce", [0, 2], False, 0)
    assert (found.task, found.target, found.answers) == ("x", "T", Path("a.jsonl"))
    assert command.request_of(parsed("--general", "--base", "B", "--lora", "4")).settings.lora.r == 4
    assert command.request_of(parsed("--general", "--layers", "auto")).settings.layers == "auto"
    own = command.request_of(parsed("--general", "--tokenizer", "W", "--vocab", "tli"))
    assert (own.tokenizer, own.settings.vocab) == ("W", "tli")


def test_tasks_come_from_partition_where_its_file_is_given(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", [plain_prompt("hello", task="greetings")])
    found = command.request_of(parsed("--general", "--prompts", str(tmp_path / "p.jsonl")))
    assert set(found.tasks.values()) == {"greetings"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "one of the arguments --task --general is required"),
        (("--general", "--layers", "some"), "--layers some"),
        (("--general", "--set", "patience"), "not KEY=VALUE"),
        (("--general", "--set", "patients=1"), "no setting `patients`"),
        (("--general", "--tokens", "-3"), "`tokens` cannot be -3"),
        (("--general",), "a.jsonl cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(
    flags: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["align", "--target", "T", "--answers", "a.jsonl", "--out", "o", *flags]) == 2
    said = capsys.readouterr()
    assert says in said.err and said.out == ""
    assert said.err.count("\n") == 1


def test_a_full_disk_is_no_bad_input(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another code: a build leaves out what cannot be made, not what the next run can make."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    flags = ["align", "--target", str(shop / "target"), "--answers", str(shop / "answers.jsonl"), "--general"]
    assert cli.main([*flags, "--out", str(tmp_path / "o")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be written (No space left on device); free some space." in said


def test_the_result_is_one_json_object(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["align", "--target", str(shop / "target"), "--answers", str(shop / "answers.jsonl"), "--base",
             str(shop / "base"), "--task", "letters", "--out", str(tmp_path / "o"), "--epochs", "1", "--set",
             "evaluations=1"]  # fmt: skip
    assert cli.main([*flags, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["task"] == "letters" and made["heldout"]["letters"]["after"]["requests"] > 0
    assert cli.main(flags) == 0  # found again
    assert "letters" in capsys.readouterr().out
