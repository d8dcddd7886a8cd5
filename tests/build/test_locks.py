"""A folder's lock: one holder, who is named, and who lets go however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sglang_hetero_spec.build.locks import LockedError, directory_lock

HOLD = """
import sys, time
from sglang_hetero_spec.build.locks import directory_lock
with directory_lock(sys.argv[1], what="hetero-spec build --out here"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "by the lock"
    process = hold(folder)
    who = rf"`hetero-spec build --out here` \(process {process.pid} on .*wait until"
    with pytest.raises(LockedError, match=who), directory_lock(folder):
        pass
    process.kill()
    process.wait()
    with directory_lock(folder), directory_lock(folder, "another"), pytest.raises(LockedError), directory_lock(folder):
        pass
    assert list(folder.iterdir()) == []


def test_what_was_started_meanwhile_does_not_hold_it_on(tmp_path: Path) -> None:
    with directory_lock(tmp_path):
        process = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with directory_lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "x"
    with pytest.raises(LockedError, match=r"cannot be locked \(Not a directory\)"), directory_lock(below):
        pass
