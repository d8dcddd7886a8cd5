"""What every task's generator shares: the example, the held-out split, wording helpers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HELDOUT_ONE_IN = 16


@dataclass(frozen=True)
class Example:
    """One prompt with its reference answer. `key` is what the held-out split is made by (not the wording)."""

    task: str
    prompt: str
    answer: str
    key: str


@dataclass(frozen=True)
class Sources:
    """Where real text may be found; `data` is None when only generated text can be used."""

    data: Path | None


# A generator yields examples for ever, in an order that its random state fixes.
Generator = Callable[[random.Random, Sources], Iterator[Example]]


def is_heldout(key: str) -> bool:
    """Whether the content belongs to the held-out side: a function of the content alone, whatever the seed."""
    return hashlib.sha256(key.encode()).digest()[0] % HELDOUT_ONE_IN == 0


def example(task: str, instruction: str, content: str, answer: str, key: str) -> Example:
    """A prompt is an instruction and its content, then a blank line: the answer follows."""
    body = f"{instruction}\n{content}" if content else instruction
    return Example(task, f"{body}\n\n", answer.strip(), f"{task}:{key}")


def pick(rng: random.Random, *options: str) -> str:
    return rng.choice(options)


def a_an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def join_and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
