"""A stage is done once, resumed after a fault, begun anew with another key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.stages import Stage


def test_done_once(tmp_path: Path) -> None:
    calls: list[str] = []
    stage = Stage(tmp_path / "one", {"a": 1})
    assert stage.run(lambda folder: calls.append("first"), print)
    assert stage.is_done
    assert not stage.run(lambda folder: calls.append("second"), print)
    assert calls == ["first"]


def test_a_fault_leaves_what_was_made(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "one", {"a": 1})

    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        stage.run(broken, print)
    assert not stage.is_done
    seen: list[bool] = []
    assert stage.run(lambda folder: seen.append((folder / "half").exists()), print)
    assert seen == [True]


def test_a_key_that_could_not_be_written_is_no_other_key(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    said: list[str] = []
    assert Stage(tmp_path / "one", {"a": 1}).run(lambda folder: None, said.append)
    assert said == []


def test_another_key_begins_anew(tmp_path: Path) -> None:
    said: list[str] = []
    Stage(tmp_path / "one", {"a": 1}).run(lambda folder: (folder / "old").write_text("x") and None, said.append)
    seen: list[bool] = []
    stage = Stage(tmp_path / "one", {"a": 2})
    assert not stage.is_done
    assert stage.run(lambda folder: seen.append((folder / "old").exists()), said.append)
    assert seen == [False] and "begun anew" in said[0]
