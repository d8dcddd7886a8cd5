"""Where the words go: results on stdout, everything else on stderr; bad input is one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


class UsageError(ValueError):
    """Input that cannot be used: one sentence, exit code 2."""


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(value, allow_nan=False))


def say(text: str) -> None:
    """A note to the user, on stderr."""
    print(text, file=sys.stderr)


def console() -> Console:
    """A rich console on stdout, wide enough for tables in files and pipes too; colours only on a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)
