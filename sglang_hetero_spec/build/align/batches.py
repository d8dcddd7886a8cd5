"""Planned batches of rows as tensors, answer positions marked. Right padding needs no mask in a causal model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sglang_hetero_spec.build.align.answers import Row
from sglang_hetero_spec.build.align.plan import cut


class TeacherRows(Protocol):
    """What a cache adds to a batch: tensors with one row per answer position, in the batch's order."""

    def columns(self, rows: Sequence[Row]) -> Mapping[str, Tensor]: ...


def as_tensors(rows: Sequence[Row]) -> dict[str, Tensor]:
    """input_ids [B, T], right-padded with 0; keep [N]: flat positions that predict; tokens [N]: what (`Row.scored`)."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    keep, tokens = [], []
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor([*row.prompt, *row.answer])
        positions, labels = row.scored
        keep.append(place * width + torch.tensor(positions))
        tokens.append(torch.tensor(labels))
    return {"input_ids": ids, "keep": torch.cat(keep), "tokens": torch.cat(tokens)}


class PlannedBatches(Dataset):
    """Item i is the rows of batch i."""

    def __init__(self, rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> None:
        self._rows, self._batches = rows, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Row]:
        return [self._rows[row] for row in self._batches[index]]


class Collator:
    """A list of one planned batch, as Trainer's loader gives it, to tensors."""

    def __init__(self, teacher: TeacherRows | None) -> None:
        self._teacher = teacher

    def __call__(self, items: list[list[Row]]) -> dict[str, Tensor]:
        (rows,) = items
        batch = as_tensors(rows)
        if self._teacher is not None:
            batch.update(self._teacher.columns(rows))
        return batch


def bucketed(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Every row once, as indices; rows of like length together."""
    lengths = [len(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda row: lengths[row])
    yield from (list(batch) for batch in cut(order, lengths, batch_tokens))


def narrowed(logits: Tensor, only: Tensor | None) -> Tensor:
    """The columns of these ids."""
    return logits if only is None else logits.index_select(-1, only.to(logits.device))


class AnswerHead:
    """Makes a causal model score chosen positions only.

    A hook selects them in front of the output layer, so whatever the model does to its logits afterwards still happens.
    only: int64 [n], the ids that are scored (V is n then); None for all. num_exits: how often each position is scored
    (`exits.ExitHead`); logits are [num_exits * N, V] then, the whole model's last.
    """

    num_exits = 1

    def __init__(self, model: Any, only: Tensor | None = None) -> None:
        head: nn.Module = model.get_output_embeddings()
        self._only = only
        self._keep: Tensor | None = None
        self._seen: Tensor | None = None
        self._scored = True
        head.register_forward_pre_hook(self._select)

    def logits(self, model: Any, input_ids: Tensor, keep: Tensor) -> Tensor:
        """[N, V] at the flat positions `keep` of `input_ids` [B, T]."""
        return narrowed(self._run(model, input_ids, keep, True)[0], self._only)

    def hidden(self, model: Any, input_ids: Tensor, keep: Tensor) -> Tensor:
        """[N, H]: what the output layer gets there (the layer itself is run on one position only)."""
        return self._run(model, input_ids, keep, False)[1]

    def _run(self, model: Any, input_ids: Tensor, keep: Tensor, scored: bool) -> tuple[Tensor, Tensor]:
        self._keep, self._scored = keep, scored
        try:
            logits = model(input_ids=input_ids, use_cache=False).logits[0]
            assert self._seen is not None, "the output layer was called"
            return logits, self._seen
        finally:
            self._keep = self._seen = None

    def _select(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._keep is None:
            return None
        self._seen = args[0].flatten(0, 1)[self._keep]
        return ((self._seen if self._scored else self._seen[:1]).unsqueeze(0), *args[1:])
