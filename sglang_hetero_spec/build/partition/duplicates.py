"""Which prompts of a log are the same, or the same but for a few characters.

Near means: equal when case, spaces and punctuation are left out, or sharing nine tenths of their runs of five
characters (found by MinHash, then counted). Runs that one prompt in twenty has, such as those of a common
instruction, are left out of the count: a shared beginning makes no duplicate.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.build.prompts import Prompt

NEAR = 0.9
_RUN = 5
_BANDS, _ROWS = 8, 8
_COMMON_SHARE, _COMMON_AT_LEAST = 0.05, 4
_FEW_RUNS = 16  # fewer say too little
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Duplicate:
    """A prompt left out because `of`, which comes first in the log, stands for it; `kind` is `exact` or `near`."""

    id: str
    of: str
    kind: str


@dataclass(frozen=True)
class Distinct:
    """The prompts that stay, in the order of the log, how many of the log each stands for, and what was left out."""

    prompts: tuple[Prompt, ...]
    requests: tuple[int, ...]
    duplicates: tuple[Duplicate, ...]


def distinct_prompts(prompts: Iterable[Prompt]) -> Distinct:
    """Leave out repeated prompts; the first of each group stays."""
    first: dict[str, Prompt] = {}
    requests: dict[str, int] = {}
    duplicates = []
    for prompt in prompts:
        requests[prompt.id] = requests.get(prompt.id, 0) + 1
        if prompt.id in first:
            duplicates.append(Duplicate(prompt.id, prompt.id, "exact"))
        first.setdefault(prompt.id, prompt)
    unique = tuple(first.values())
    for index, of in near_duplicates([_content(prompt) for prompt in unique]).items():
        prompt, kept = unique[index], unique[of]
        duplicates.append(Duplicate(prompt.id, kept.id, "near"))
        requests[kept.id] += requests.pop(prompt.id)
    stay = tuple(prompt for prompt in unique if prompt.id in requests)
    return Distinct(stay, tuple(requests[prompt.id] for prompt in stay), tuple(duplicates))


def near_duplicates(texts: Sequence[str]) -> dict[int, int]:
    """For each text that is near an earlier one: its index, and that of the one that stays."""
    found: dict[int, int] = {}
    bare: dict[str, int] = {}
    for index, text in enumerate(texts):
        key = _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())
        of = bare.setdefault(key or text, index)
        if of != index:
            found[index] = of
    left = [index for index in range(len(texts)) if index not in found]
    runs = _rare_runs([_runs(texts[index]) for index in left])
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for position, index in enumerate(left):
        own = runs[position]
        if len(own) < _FEW_RUNS:
            continue
        keys = _band_keys(own)
        candidates = sorted({other for key in keys for other in buckets.get(key, ())})
        of = next((other for other in candidates if _jaccard(own, runs[other]) >= NEAR), None)
        if of is not None:
            found[index] = left[of]
            continue
        for key in keys:
            buckets.setdefault(key, []).append(position)
    return found


def _content(prompt: Prompt) -> str:
    if prompt.messages is None:
        return prompt.text
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


def _runs(text: str) -> np.ndarray:
    """Hashes of the different runs of five bytes of the text in lower case."""
    data = np.frombuffer(" ".join(text.casefold().split()).encode(), dtype=np.uint8).astype(np.uint64)
    if len(data) < _RUN:
        return np.zeros(0, dtype=np.uint64)
    packed = np.zeros(len(data) - _RUN + 1, dtype=np.uint64)
    for offset in range(_RUN):
        packed = packed * np.uint64(256) + data[offset : len(data) - _RUN + 1 + offset]
    return np.unique(packed)


def _rare_runs(runs: list[np.ndarray]) -> list[np.ndarray]:
    limit = max(_COMMON_AT_LEAST, int(_COMMON_SHARE * len(runs)))
    values, counts = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *runs]), return_counts=True)
    common = values[counts > limit]
    return [np.setdiff1d(own, common, assume_unique=True) for own in runs]


def _band_keys(runs: np.ndarray) -> list[tuple[int, bytes]]:
    factors = (np.arange(_BANDS * _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)) * _MULTIPLIER
    smallest = np.empty(len(factors), dtype=np.uint64)
    for position, factor in enumerate(factors):
        mixed = runs * factor
        mixed ^= mixed >> np.uint64(29)
        mixed *= _MULTIPLIER
        smallest[position] = mixed.min()
    return [(band, smallest[band * _ROWS : (band + 1) * _ROWS].tobytes()) for band in range(_BANDS)]


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
