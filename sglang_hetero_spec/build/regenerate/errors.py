"""Why a run of `regenerate` did not begin, or did not end."""

from __future__ import annotations

import errno

from sglang_hetero_spec.errors import HeteroError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RegenerateError(HeteroError):
    """Input that cannot be used: one sentence, exit code 2."""


class RegenerateStopped(RegenerateError):
    """The run broke off with what it finished kept: one sentence, exit code 1."""


def cannot_write(path: object, error: OSError) -> RegenerateStopped:
    """The sentence for a file that cannot be written."""
    remedy = "free some space" if error.errno in _FULL else "check the folder and its permissions"
    return RegenerateStopped(
        f"{path} cannot be written ({error.strerror}); {remedy} and run the same command again, what is finished is"
        " kept."
    )
