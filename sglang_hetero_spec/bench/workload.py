"""The requests of a benchmark: which prompts, in which order, how long."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.bench.prompt_source import Source
from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.build.regenerate import target as targets
from sglang_hetero_spec.commands.output import UsageError

NO_TASK = "(no task)"
MAX_WARM_UP = 8


@dataclass(frozen=True)
class Item:
    """One prompt. body: `text` or `input_ids` of a request; tokens: its length in the target's tokens."""

    task: str
    body: dict[str, Any]
    tokens: int


@dataclass(frozen=True)
class Workload:
    """items: in arrival order, tasks in turn. warm_up: others, that nobody measures.

    labelled: every item has a task.
    """

    name: str
    items: tuple[Item, ...]
    warm_up: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        return all(item.task != NO_TASK for item in self.items)

    @property
    def tasks(self) -> dict[str, int]:
        """Number of prompts of each, in the order of appearance."""
        return dict(Counter(item.task for item in self.items))

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, of those that warm up too."""
        return max(item.tokens for item in (*self.items, *self.warm_up))

    @property
    def sha256(self) -> str:
        rows = [[item.task, item.body] for item in self.items]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def make_workload(
    source: Source, tokenizer: Any, num_prompts: int, lengths: Sequence[int], room: int | None
) -> Workload:
    """The first `num_prompts` prompts, one of each task in turn. lengths: tokens that they are brought to, in turn, by
    joining prompts of the same task; empty: as they are. room: tokens that a prompt may have, None if unknown.

    UsageError, in one sentence, where there are too few or one is too long; RegenerateError for chats without a
    template.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in source.prompts:
        groups.setdefault(prompt.task or NO_TASK, []).append(prompt)
    ordered = [prompt for row in itertools.zip_longest(*groups.values()) for prompt in row if prompt is not None]
    warm_up = [group[-1] for group in groups.values() if len(group) > 1][:MAX_WARM_UP]
    rest = [prompt for prompt in ordered if all(prompt is not taken for taken in warm_up)]
    if num_prompts > len(rest):
        raise UsageError(
            f"--num-prompts {num_prompts} is more than {source.name} has ({len(rest)} beside those that warm up); ask"
            " for fewer."
        )
    chosen = rest[:num_prompts]
    if lengths:
        items = _of_lengths(groups, chosen, tokenizer, lengths)
    else:
        items = _items(chosen, tokenizer)
    warm = _items(warm_up, tokenizer) or items[:1]
    _check_lengths(items, room)
    return Workload(source.name, tuple(items), tuple(item for item in warm if room is None or item.tokens <= room),
                    source.notes)  # fmt: skip


def _items(prompts: Sequence[Prompt], tokenizer: Any) -> list[Item]:
    items = []
    for prompt, ids in zip(prompts, targets.encode(tokenizer, prompts), strict=True):
        if isinstance(ids, str):
            raise UsageError(f"Prompt `{prompt.id}` ({prompt.text[:40]!r}) cannot be sent: {ids}; leave it out.")
        body = {"text": prompt.text} if prompt.messages is None else {"input_ids": list(ids)}
        items.append(Item(prompt.task or NO_TASK, body, len(ids)))
    return items


def _of_lengths(
    groups: dict[str, list[Prompt]], chosen: Sequence[Prompt], tokenizer: Any, lengths: Sequence[int]
) -> list[Item]:
    """Each chosen prompt with so many of its task before it that it has the length; cut off at the front."""
    items = []
    for prompt, length in zip(chosen, itertools.cycle(lengths), strict=False):
        group = groups[prompt.task or NO_TASK]
        others = itertools.cycle(group[group.index(prompt) + 1 :] + group[: group.index(prompt) + 1])
        text = prompt.text
        ids = tokenizer(text, verbose=False).input_ids
        while len(ids) < length:
            text = f"{next(others).text}\n\n{text}"
            ids = tokenizer(text, verbose=False).input_ids
        items.append(Item(prompt.task or NO_TASK, {"input_ids": list(ids[-length:])}, length))
    return items


def _check_lengths(items: Sequence[Item], room: int | None) -> None:
    longest = max(range(len(items)), key=lambda number: items[number].tokens)
    if room is not None and items[longest].tokens > room:
        raise UsageError(
            f"Prompt {longest} has {items[longest].tokens} tokens, and the context leaves {max(0, room)} beside the"
            " answer; raise --context-length, lower --max-new-tokens or --prompt-tokens, or leave long prompts out."
        )
