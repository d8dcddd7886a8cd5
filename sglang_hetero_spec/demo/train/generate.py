"""Greedy answers of the target for many prompts, with the last hidden states that its logits come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sglang_hetero_spec.demo.train.batches import Row
from sglang_hetero_spec.demo.train.model import Cache, TinyLlama


@dataclass(frozen=True)
class Answered:
    """`row.answer` is the target's own greedy answer; `hidden` [len(answer), hidden] bf16, one row per answer token."""

    row: Row
    hidden: Tensor


@torch.inference_mode()
def answer(
    model: TinyLlama,
    rows: Sequence[Row],
    eos: int,
    max_new: int,
    batch: int,
    report: Callable[[int, int], None],
) -> list[Answered]:
    """Same order as `rows`. Reference answers only serve to put prompts of like length together."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].answer) // 8, len(rows[i].prompt)))
    done: dict[int, Answered] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for index, item in zip(chosen, _batch(model, [rows[i] for i in chosen], eos, max_new), strict=True):
            done[index] = item
        report(len(done), len(rows))
    return [done[i] for i in range(len(rows))]


def _batch(model: TinyLlama, rows: Sequence[Row], eos: int, max_new: int) -> list[Answered]:
    width = max(len(row.prompt) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
        valid[i, width - len(row.prompt) :] = True
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    cache = Cache(model.shape, len(rows), width + max_new)
    # A pad row attends to itself, or its softmax would be empty.
    mask = (valid[:, None, :] & torch.ones(width, width).tril().bool()) | torch.eye(width).bool()
    hidden = model.step(ids, positions, cache, mask.unsqueeze(1))[:, -1]
    tokens: list[list[int]] = [[] for _ in rows]
    states: list[list[Tensor]] = [[] for _ in rows]
    alive, position = torch.arange(len(rows)), valid.sum(1)
    while True:
        chosen = model.logits(hidden).argmax(-1)
        kept = hidden.bfloat16()
        going = torch.ones(len(alive), dtype=torch.bool)
        for place, (row, token) in enumerate(zip(alive.tolist(), chosen.tolist(), strict=True)):
            if len(tokens[row]) < max_new and not (tokens[row] and tokens[row][-1] == eos):
                tokens[row].append(token)
                states[row].append(kept[place])
            going[place] = tokens[row][-1] != eos and len(tokens[row]) < max_new
        if not going.any():
            break
        if going.sum() < 0.75 * len(alive):
            keep = going.nonzero().squeeze(1)
            cache.keep(keep)
            alive, chosen, position, valid = alive[keep], chosen[keep], position[keep], valid[keep]
        valid = torch.cat([valid, torch.ones(len(alive), 1, dtype=torch.bool)], 1)
        hidden = model.step(chosen[:, None], position[:, None], cache, valid[:, None, None, :])[:, -1]
        position = position + 1
    return [
        Answered(Row(row.task, row.prompt, ids_), torch.stack(list_))
        for row, ids_, list_ in zip(rows, tokens, states, strict=True)
    ]
