"""Requests as both servers get them: with speculation (a drafter named) and without."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.overrides import served_by

NUM_PROMPTS = 64
NUM_TOKENS = 128
CONCURRENCY = 16
GREEDY = {"temperature": 0, "max_new_tokens": NUM_TOKENS, "ignore_eos": True}


@dataclass(frozen=True)
class Case:
    """params: sampling parameters; fields: the rest of the /generate request; drafter: None for the fallback, "a+b" for
    two of them."""

    prompt: str | list[int]
    params: dict[str, Any] = field(default_factory=lambda: dict(GREEDY))
    fields: dict[str, Any] = field(default_factory=dict)
    drafter: str | None = None

    @property
    def key(self) -> str:
        """The same for requests that have one answer, whoever drafts."""
        return json.dumps([self.prompt, self.params, self.fields], sort_keys=True)

    def request(self) -> dict[str, Any]:
        params = dict(self.params)
        if self.drafter is not None:
            params["custom_params"] = served_by(self.drafter)
        return {**self.fields, "sampling_params": params}

    def with_params(self, **params: Any) -> Case:
        return replace(self, params={**self.params, **params})

    def with_fields(self, **fields: Any) -> Case:
        return replace(self, fields={**self.fields, **fields})


def cases_of(prompts: Sequence[str | list[int]], drafters: Iterable[str], **params: Any) -> list[Case]:
    """One case per prompt, the drafters in turn; params beside (and before) those of GREEDY."""
    turns = itertools.cycle(drafters)
    return [Case(prompt, params={**GREEDY, **params}, drafter=next(turns)) for prompt in prompts]


def mixed_prompts(heldout: Path, count: int) -> list[str]:
    """Prompts of all tasks, interleaved; every eighth is several of them in a row, some hundred tokens long."""
    by_task: dict[str, list[str]] = {}
    for line in heldout.read_text().splitlines():
        row = json.loads(line)
        by_task.setdefault(row["task"], []).append(row["prompt"])
    interleaved = [prompt for row in zip(*by_task.values(), strict=False) for prompt in row]
    short, spare = interleaved[:count], interleaved[count:]
    several = ["".join(spare[place % 40 :][:6]) for place in range(count)]
    return [several[place] + prompt if place % 8 == 5 else prompt for place, prompt in enumerate(short)]
