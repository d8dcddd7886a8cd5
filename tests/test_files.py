"""A file appears whole or stays as it was, and what stopped it is one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_hetero_spec.files import write_json, write_lines, write_whole

LIMIT = 2000


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """The kernel refuses what a file would grow beyond LIMIT, as a full disk refuses it.

    Not a fixture: pytest writes its report, which may be a file too, before a fixture ends.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "name.json"
    write_json(path, {"a": 1}, ValueError)
    write_lines(path, ["b", "c"], ValueError)
    assert path.read_bytes() == b"b\nc\n" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "name.json"
    write_json(path, "old", ValueError)
    message = r"name.json cannot be written \(File too large\); free some space\."
    with small_disk(), pytest.raises(LookupError, match=message):
        write_json(path, "x" * LIMIT, LookupError)
    assert path.read_bytes() == b'"old"\n' and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"No such file or directory\); check the folder and its permissions\."):
        write_lines(tmp_path / "nowhere" / "name", ["a"], LookupError)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("no such number")])
def test_stopped_half_way(tmp_path: Path, stop: BaseException) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise stop

    with pytest.raises(type(stop)):
        write_whole(tmp_path / "name", parts(), LookupError)
    assert list(tmp_path.iterdir()) == []


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a loss of power may leave an empty file under the name."""

    def full(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LookupError, match="Input/output error"):
        write_lines(tmp_path / "name", ["a"], LookupError)
    assert list(tmp_path.iterdir()) == []
