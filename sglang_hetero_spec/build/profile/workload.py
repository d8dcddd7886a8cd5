"""Which prompts each task is measured with, as the token ids that the server gets."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.profile.records import ProfileError
from sglang_hetero_spec.build.prompts import Prompt

Ids = tuple[int, ...]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # pool.schema.Name


@dataclass(frozen=True)
class Workload:
    """prompts: token ids by task, in the order of the file. notes: what was left out, one sentence each."""

    prompts: dict[str, tuple[Ids, ...]]
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(ids) for prompts in self.prompts.values() for ids in prompts)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.prompts, sort_keys=True).encode()).hexdigest()

    def batch(self, task: str, concurrency: int) -> tuple[Ids, ...]:
        """The task's prompts, from the start again where they are fewer than are to be in flight."""
        prompts = self.prompts[task]
        return tuple(prompts[number % len(prompts)] for number in range(max(concurrency, len(prompts))))

    def mixed(
        self, concurrency: int, shares: dict[str, float] | None = None
    ) -> tuple[tuple[tuple[str, Ids], ...], ...]:
        """(task, prompt) of traffic in which the tasks have these shares of the requests (default: equal), in batches.

        As many requests as all tasks have prompts, spread evenly: after each request the tasks have had what their
        share of so many is, as near as can be. A batch has as many requests as that of a task alone, so that both
        spend as much of their time on the last requests, when there are fewer in flight than may be.
        """
        total = max(concurrency, sum(map(len, self.prompts.values())))
        weights = shares or dict.fromkeys(self.prompts, 1.0)
        scale = sum(weights.get(task, 0.0) for task in self.prompts)
        sent = dict.fromkeys((task for task in self.prompts if weights.get(task, 0.0) > 0), 0)
        order = []
        for number in range(1, total + 1):
            task = max(sent, key=lambda task: number * weights[task] / scale - sent[task])
            prompts = self.prompts[task]
            order.append((task, prompts[sent[task] % len(prompts)]))
            sent[task] += 1
        size = max(concurrency, *map(len, self.prompts.values()))
        count = max(1, round(total / size))
        edges = [round(total * number / count) for number in range(count + 1)]
        return tuple(tuple(order[start:end]) for start, end in itertools.pairwise(edges))


def choose(
    prompts: Sequence[Prompt],
    encoded: Sequence[Ids | str],
    *,
    num_prompts: int,
    room: int | None,
) -> Workload:
    """The first `num_prompts` prompts of each task that fit; outliers (no task) are left out.

    encoded: of each prompt its token ids, or why it has none. room: tokens that a prompt may have, None if unknown.
    ProfileError if no prompt is left, or none of some task.
    """
    chosen: dict[str, list[Ids]] = {}
    bad: dict[str, int] = {}
    for prompt, ids in zip(prompts, encoded, strict=True):
        if prompt.task is None:
            continue
        if not _NAME.fullmatch(prompt.task):
            raise ProfileError(
                f"Prompt `{prompt.id}` has the task {prompt.task!r}, which is no name (letters, digits, `.`, `_`, `-`);"
                " rename it."
            )
        mine = chosen.setdefault(prompt.task, [])
        if len(mine) == num_prompts:
            continue
        if isinstance(ids, str) or (room is not None and len(ids) > room):
            bad[prompt.task] = bad.get(prompt.task, 0) + 1
        else:
            mine.append(ids)
    if not chosen:
        raise ProfileError("No prompt has a task; give the prompts.jsonl that `hetero-spec partition` wrote.")
    for task, mine in chosen.items():
        if not mine:
            limit = "" if room is None else f" (at most {room} tokens fit beside the answer)"
            raise ProfileError(
                f"No prompt of task `{task}` can be used{limit}; lower --max-new-tokens, or leave the task out."
            )
    notes = [f"{number} prompts of task `{task}` are too long or have no tokens." for task, number in bad.items()]
    notes += [
        f"Task `{task}` has {len(mine)} prompts, fewer than --num-prompts {num_prompts}."
        for task, mine in chosen.items()
        if len(mine) < num_prompts
    ]
    return Workload({task: tuple(mine) for task, mine in chosen.items()}, tuple(notes))
