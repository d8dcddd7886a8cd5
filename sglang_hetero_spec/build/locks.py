"""One run at a time in a folder: an advisory lock that the kernel lets go when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sglang_hetero_spec.errors import HeteroError

_IN_USE = (errno.EWOULDBLOCK, errno.EACCES)


class LockedError(HeteroError):
    """The folder is in use by another run, or cannot be locked."""


@contextlib.contextmanager
def directory_lock(folder: str | Path, name: str = "build", what: str = "hetero-spec build") -> Iterator[None]:
    """Hold the lock `name` of `folder` (which is made if missing); LockedError says who holds it already.

    `what` is how a refused run is told of this one. Locks of other names in the same folder are independent. The
    lock is this process's: a child that is started by exec does not hold it on.
    """
    folder = Path(folder)
    path = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(path, folder)
    except OSError as error:
        raise LockedError(
            f"{folder} cannot be locked ({error.strerror}); choose a folder on a local disk that you may write to."
        ) from None
    try:
        _say_who(file, what)
        yield
    finally:
        # Removed while still held: whoever waits for this file finds out that it is gone.
        path.unlink(missing_ok=True)
        os.close(file)


def _acquire(path: Path, folder: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, path):
                return file
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno in _IN_USE:
                raise LockedError(
                    f"{folder} is in use by {holder}; wait until it is done, or choose another folder."
                ) from None
            raise
        os.close(file)


def _is_still(file: int, path: Path) -> bool:
    """Whether the locked file is the one at `path`: its former holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _say_who(file: int, what: str) -> None:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "what": what, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk does not matter to the lock
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(who).encode(), 0)


def _holder(file: int) -> str:
    try:
        who = json.loads(os.pread(file, 4096, 0))
        return f"`{who['what']}` (process {who['pid']} on {who['host']}, since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
