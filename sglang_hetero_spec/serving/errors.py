"""What can go wrong with a server that a command started, said in one sentence."""

from __future__ import annotations

from pathlib import Path


class ServingError(RuntimeError):
    """A server did not start, went away or refused a request (exit code 1). What happened, and what to do."""


class ServerEnded(ServingError):
    """A server's process ended by itself. log: what it said."""

    def __init__(self, sentence: str, log: Path) -> None:
        super().__init__(sentence)
        self.log = log
