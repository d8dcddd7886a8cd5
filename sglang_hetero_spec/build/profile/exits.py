"""A sorted drafter whose fixed exits were measured: with what they cost, when it should leave because it is sure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sglang_hetero_spec.build.align.answers import Row, read_answers
from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.records import ProfileError, ProfileRecord
from sglang_hetero_spec.build.profile.thresholds import Chosen, SeenAnswer, choose_thresholds, measured_costs
from sglang_hetero_spec.pool.safetensors_file import read_header

_BATCH_TOKENS = 4096
# Tokens of answers that are enough to choose by.
_MOST_TOKENS = 20_000


@dataclass(frozen=True)
class Adaptive:
    """A candidate that leaves by confidence, and what was expected of it."""

    candidate: Candidate
    chosen: Chosen


def by_confidence(
    measured: Sequence[Candidate],
    records: Sequence[ProfileRecord],
    prompts: Sequence[Sequence[int]],
    answers: Path,
    concurrency: Sequence[int],
) -> list[Adaptive]:
    """For every sorted drafter among `measured` and every concurrency, the thresholds that should be fastest there.

    prompts: held-out, as ids; answers: of the target, those to other prompts are left aside.
    """
    found: dict[tuple[Any, ...], Adaptive] = {}
    seen: dict[tuple[Path, tuple[int, ...]], list[SeenAnswer]] = {}
    for candidates in _by_checkpoint(measured):
        first = candidates[0]
        assert first.path is not None, "a sorted drafter has one"
        exits = tuple(dict(candidate.extra)["exits"][0] for candidate in candidates)
        # Another shape may have other exits: what could not be measured is left out of each alone.
        if (first.path, exits) not in seen:
            seen[first.path, exits] = see_exits(first.path, exits, held_out(answers, prompts))
        name = first.drafter.removesuffix(f"-exit{exits[0]}")
        for number in concurrency:
            names = [candidate.drafter for candidate in candidates]
            costs = measured_costs(records, names, first.settings.num_steps, number)
            costs = replace(costs, look=costs.segments[0] * head_share(first.path, exits[0]))
            chosen = choose_thresholds(seen[first.path, exits], costs, first.settings.num_steps)
            extra = (("exits", exits), ("thresholds", chosen.thresholds))
            alike = (first.path, first.settings, chosen.thresholds)
            found.setdefault(alike, Adaptive(replace(first, drafter=f"{name}-at{number}", extra=extra), chosen))
    return list(found.values())


def _by_checkpoint(measured: Sequence[Candidate]) -> list[list[Candidate]]:
    """Fixed exits of one checkpoint with one shape, ascending; only where several could be measured."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in measured:
        extra = dict(candidate.extra)
        if candidate.kind == "sorted" and candidate.takes_shapes and len(extra.get("exits", ())) == 1:
            groups.setdefault((candidate.path, candidate.settings), []).append(candidate)
    return [group for group in groups.values() if len(group) > 1]


def held_out(answers: Path, prompts: Sequence[Sequence[int]]) -> list[Row]:
    """Answers to these prompts, no more of them than are needed. ProfileError where there is none."""
    wanted = {tuple(ids) for ids in prompts}
    rows = [row for row in read_answers(answers) if row.prompt in wanted]
    if not rows:
        raise ProfileError(
            f"{answers} has no answer to a prompt that is profiled, by which a sorted drafter's thresholds could be"
            " chosen; give the target's answers to them, or leave the drafter out."
        )
    every = max(1, round(sum(len(row.answer) for row in rows) / _MOST_TOKENS))
    return rows[::every]


def head_share(folder: Path, layers: int) -> float:
    """Of the weights that a draft left behind so many layers reads, those of the head: what it costs to look there."""
    sizes: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        sizes |= {name: math.prod(tensor["shape"]) for name, tensor in read_header(path).items()}
    heads = [size for name, size in sizes.items() if name.endswith(("lm_head.weight", "embed_out.weight"))]
    tables = [size for name, size in sizes.items() if name.endswith(("embed_tokens.weight", "wte.weight"))]
    numbers = {name: re.search(r"\.(?:layers|h)\.(\d+)\.", name) for name in sizes}
    inner = sum(sizes[name] for name, number in numbers.items() if number and int(number[1]) < layers)
    head = (heads or tables or [0])[0]
    return head / max(1, head + inner)


def see_exits(folder: Path, exits: Sequence[int], rows: Sequence[Row]) -> list[SeenAnswer]:
    """What each exit of the checkpoint says of each token of the answers, token 0 (the prefill's) left out."""
    import torch

    from sglang_hetero_spec.build.align.batches import as_tensors, bucketed
    from sglang_hetero_spec.build.align.exits import ExitHead
    from sglang_hetero_spec.build.align.models import load_model, num_layers
    from sglang_hetero_spec.drafters.sorted import confidence

    model = load_model(str(folder), torch.float32, "--candidates").eval()
    depth = num_layers(model)
    head = ExitHead(model, exits if exits[-1] == depth else (*exits, depth))
    found: dict[int, SeenAnswer] = {}
    with torch.inference_mode():
        for batch in bucketed(rows, _BATCH_TOKENS):
            tensors = as_tensors([rows[i] for i in batch])
            logits = head.logits(model, tensors["input_ids"], tensors["keep"])
            sure = confidence(logits).view(head.num_exits, -1)[: len(exits)]
            hits = (logits.argmax(-1).view(head.num_exits, -1) == tensors["tokens"])[: len(exits)]
            sizes = [len(rows[i].answer) for i in batch]
            for i, one, other in zip(batch, sure.split(sizes, 1), hits.split(sizes, 1), strict=True):
                found[i] = SeenAnswer(np.array(one[:, 1:]), np.array(other[:, 1:]))
    return [found[i] for i in range(len(rows))]
