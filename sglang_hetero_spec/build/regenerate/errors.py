"""Why a run of `regenerate` did not begin, or did not end."""

from __future__ import annotations

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import remedy


class RegenerateError(HeteroError):
    """Input that cannot be used: one sentence, exit code 2."""


class RegenerateStopped(RegenerateError):
    """The run broke off with what it finished kept: one sentence of what happened and what to do, exit code 1."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = what.rstrip("."), remedy
        super().__init__(f"{self.what}; {remedy or 'run the same command again'}.")

    def with_kept(self, answers: int, where: object) -> RegenerateStopped:
        """The same, and where the answers so far are."""
        if not answers:
            return self
        kept = f"{answers} answers are kept in {where}, the same command goes on from there"
        return RegenerateStopped(self.what, f"{self.remedy}: {kept}" if self.remedy else kept)


def cannot_write(path: object, error: OSError) -> RegenerateStopped:
    """The sentence for a file that cannot be written."""
    return RegenerateStopped(f"{path} cannot be written ({error.strerror})", remedy(error))
