"""Files that appear whole or not at all, whatever fills the disk or ends the process meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def replace_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write `<name>.part`, then rename it; OSError if the disk refuses, and `path` is as it was."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, parts: Iterable[bytes], refused: Callable[[str], Exception]) -> None:
    """The same; where the disk refuses, `refused` of one sentence."""
    try:
        replace_whole(path, parts)
    except OSError as error:
        raise refused(f"{path} cannot be written ({error.strerror or error}); {remedy(error)}.") from None


def write_lines(path: Path, lines: Iterable[str], refused: Callable[[str], Exception]) -> None:
    """Lines of text, each with its line end."""
    write_whole(path, (f"{line}\n".encode("utf-8", "surrogateescape") for line in lines), refused)


def write_json(path: Path, value: object, refused: Callable[[str], Exception]) -> None:
    """One value, for people too. ValueError for a number that JSON does not know."""
    write_lines(path, [json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)], refused)


def remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    return "free some space" if error.errno in _FULL else "check the folder and its permissions"
