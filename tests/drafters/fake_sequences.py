"""Own sequences in plain Python, with a draft model that holds a drafter to what it may read and write there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.sequences import Fed
from tests.drafters.reference import ContextModel

Context = tuple[int, ...]
GARBAGE: Context = (-1,)
PAGE = 4


@dataclass
class Row:
    """tokens: position -> draft token; kv: position -> the context that was read there. Nothing behind `reserved`."""

    tokens: dict[int, int] = field(default_factory=dict)
    kv: dict[int, Context] = field(default_factory=dict)
    reserved: int = 0

    def context(self, length: int) -> Context:
        return tuple(self.tokens[i] for i in range(length))

    def check_kv(self, end: int) -> None:
        for slot in range(end):
            assert self.kv.get(slot) == self.context(slot + 1), f"slot {slot} lacks its token's KV"

    def read(self, slot: int, context: Context) -> None:
        assert slot < self.reserved, f"slot {slot} is not the request's"
        self.kv[slot] = context


class FakeSequences:
    """drafters.sequences.Sequences. committed_tokens: row of the target's table -> target tokens.

    fails: requests that get no row and no slots. contexts: what each read_window found, row -> draft tokens.
    """

    def __init__(
        self,
        model: ContextModel,
        committed_tokens: dict[int, list[int]],
        *,
        num_rows: int = 8,
        num_pages: int = 1000,
        max_len: int = 200,
        logit_ids: Sequence[int] | None = None,
    ) -> None:
        self.max_len = max_len
        self.target = committed_tokens
        self.rows: dict[int, Row] = {}
        self.contexts: list[dict[int, Context]] = []
        self.fails: set[str] = set()
        self.model = FakeOwnModel(self, model, logit_ids)
        self._free = list(range(100, 100 + num_rows))
        self._free_pages = num_pages
        self._row_of: dict[str, int] = {}

    def open(self, rid: str, busy: Collection[str]) -> int | None:
        assert rid not in self._row_of and rid in busy
        if rid in self.fails or (not self._free and not self._evict(busy)):
            return None
        row = self._free.pop()
        self._row_of[rid], self.rows[row] = row, Row()
        return row

    def reserve(self, rid: str, length: int, busy: Collection[str]) -> bool:
        assert length <= self.max_len and rid in busy
        row = self.rows[self._row_of[rid]]
        wanted = max(0, -(-length // PAGE) - row.reserved // PAGE)
        while self._free_pages < wanted and self._evict(busy):
            pass
        if rid in self.fails or self._free_pages < wanted:
            return False
        self._free_pages -= wanted
        row.reserved += wanted * PAGE
        return True

    def row(self, rid: str) -> int | None:
        return self._row_of.get(rid)

    def close(self, rid: str) -> None:
        number = self._row_of.pop(rid, None)
        if number is not None:
            self._free_pages += self.rows.pop(number).reserved // PAGE
            self._free.append(number)

    def _evict(self, busy: Collection[str]) -> bool:
        idle = [rid for rid in self._row_of if rid not in busy]
        if idle:
            self.close(idle[0])
        return bool(idle)

    def write(self, rows: Sequence[int], positions: Sequence[int], tokens: Sequence[int]) -> None:
        for row, position, token in zip(rows, positions, tokens, strict=True):
            assert position < self.rows[row].reserved and token < self.model.model.vocab_size
            self.rows[row].tokens[position] = token

    def read_range(self, rows: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> None:
        for number, start, end in zip(rows, starts, ends, strict=True):
            row = self.rows[number]
            row.check_kv(start)
            for slot in range(start, end):
                row.read(slot, row.context(slot + 1))

    def committed(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, starts: list[int], fed: Fed | None
    ) -> list[list[int]]:
        found = []
        for row, start, end in zip(rows.tolist(), starts, (seq_lens + 1).tolist(), strict=True):
            assert 0 <= start <= end <= len(self.target[row])
            found.append(self.target[row][start:end])
        return found


class FakeOwnModel:
    """drafters.base.DraftModel over the rows of a FakeSequences. logit_ids: the draft ids that logits are given of."""

    def __init__(self, sequences: FakeSequences, model: ContextModel, logit_ids: Sequence[int] | None) -> None:
        self._sequences = sequences
        self.model = model
        self._logit_ids = list(range(model.vocab_size)) if logit_ids is None else list(logit_ids)

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        raise AssertionError("an own sequence is read by ranges")

    def logits(self, context: Context) -> list[float]:
        found = self.model.logits(context)
        return [found[i] for i in self._logit_ids]

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        contexts, logits = {}, []
        for row, number, length in self._each(batch):
            contexts[number] = row.context(length + 1)
            start = max(length - window + 1, 0)
            row.check_kv(start)
            for slot in range(start, start + window):
                row.read(slot, row.context(slot + 1) if slot <= length else GARBAGE)
            logits.append(self.logits(contexts[number]))
        self._sequences.contexts.append(contexts)
        return torch.tensor(logits)

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        logits = []
        for (row, _, length), token in zip(self._each(batch), tokens.tolist(), strict=True):
            before = row.kv[length + offset - 1]
            assert before[: length + 1] == row.context(length + 1) and len(before) == length + offset
            row.check_kv(length + 1)
            row.read(length + offset, (*before, token))
            logits.append(self.logits((*before, token)))
        return torch.tensor(logits)

    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        logits = []
        for (row, _, length), nodes, above in zip(self._each(batch), tokens.tolist(), parents.tolist(), strict=True):
            row.check_kv(length + 1)
            contexts: list[Context] = []
            for node, (token, parent) in enumerate(zip(nodes, above, strict=True)):
                assert -1 <= parent < node, "parents come before their children"
                contexts.append((*(row.context(length + 1) if parent == -1 else contexts[parent]), token))
                row.read(length + 1 + node, GARBAGE)
            logits.append([self.logits(context) for context in contexts])
        return torch.tensor(logits)

    def _each(self, batch: DraftBatch) -> list[tuple[Row, int, int]]:
        pairs = zip(batch.rows.tolist(), batch.seq_lens.tolist(), strict=True)
        return [(self._sequences.rows[number], number, length) for number, length in pairs]
