"""`hetero-spec profile` as typed, with an engine that only counts."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.profile import measure
from sglang_hetero_spec.build.profile.records import read_profile
from sglang_hetero_spec.commands import profile as command
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError
from sglang_hetero_spec.serving.errors import ServingError
from tests.build.profile.conftest import Files
from tests.build.profile.fake_engine import FakeEngine, Killed


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    args = parser.parse_args(["profile", *arguments])
    return args.run(args)


@pytest.fixture
def typed(files: Files, tmp_path: Path) -> list[str]:
    return [
        "--target", str(files.target), "--candidates", str(files.drafters / "a"), f"other={files.drafters / 'b'}",
        "--prompts", str(files.prompts), "--out", str(tmp_path / "p.jsonl"), "--concurrency", "2", "--passes", "1",
        "--max-new-tokens", "9", "--num-prompts", "2", "--num-steps", "4,2",
    ]  # fmt: skip


def use(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    monkeypatch.setattr(measure, "profile", functools.partial(measure.profile, start=engine.start))


def test_what_is_typed_is_measured(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    use(monkeypatch, engine)
    assert run(*typed, "--json", "--", "--mem-fraction-static", "0.3") == DONE
    said = json.loads(capsys.readouterr().out)
    assert said["records"] == 10 and said["kept"] == 0 and said["left_out"] == []
    assert engine.settings is not None and engine.settings.flags == ("--mem-fraction-static", "0.3")
    records = read_profile(tmp_path / "p.jsonl")
    assert {str(record.settings) for record in records} == {"0/1/1", "4/1/5", "2/1/3"}
    assert {record.drafter for record in records} == {"none", "a", "other"}
    assert run(*typed) == DONE
    table = capsys.readouterr().out
    assert "Accept length, and tokens per second with 2 in flight" in table and "4/1/5" in table


def test_the_mode_of_a_vocabulary_of_its_own_is_shown(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, FakeEngine())
    model = Path(__file__).parents[2] / "models" / "bytes"
    assert run(*typed[:2], "--candidates", f"single={model}", *typed[5:]) == DONE
    table = capsys.readouterr().out
    assert "single (tli)" in table and "single (slem)" in table and "none " in table
    assert {record.vocab for record in read_profile(tmp_path / "p.jsonl")} == {"shared", "tli", "slem"}


def test_a_server_that_fails_says_how_to_go_on(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(FakeEngine):
        def run(self, *args: Any) -> Any:
            try:
                return super().run(*args)
            except Killed:
                raise ServingError("SGLang ran out of memory; close other programs.") from None

    use(monkeypatch, Failing(passes=7))
    (tmp_path / "p.jsonl.server.log").write_text("log")
    assert run(*typed) == FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hetero-spec: SGLang ran out of memory; close other programs. What was measured is kept")
    assert said.endswith("p.jsonl.server.log.")


def test_one_argument_too_many(typed: list[str]) -> None:
    with pytest.raises(UsageError, match="`x` is one argument too many"):
        run(*typed, "--", "x")
