"""A draft model in plain Python that holds a drafter to the promises it makes about KV slots."""

from __future__ import annotations

import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from tests.drafters.reference import ContextModel

Context = tuple[int, ...]
GARBAGE: Context = (-1,)


class FakeDraftModel:
    """`drafters.base.DraftModel` over committed histories.

    committed: row -> tokens 0 .. root. kv: row -> slot -> the context that was read there, its own token last. A read
    fails where a slot that it attends to does not hold the KV of the request's own tokens.
    """

    def __init__(self, model: ContextModel, committed: dict[int, Context]) -> None:
        self.model = model
        self.committed = committed
        self.kv: dict[int, dict[int, Context]] = {row: {} for row in committed}
        self.calls: list[tuple] = []

    def batch(self, rows: list[int], newcomers: tuple[int, ...] = ()) -> DraftBatch:
        lens = [len(self.committed[row]) - 1 for row in rows]
        return DraftBatch(
            rows=torch.tensor(rows),
            seq_lens=torch.tensor(lens),
            root_tokens=torch.tensor([self.committed[row][-1] for row in rows]),
            newcomers=newcomers,
            newcomer_lens=tuple(lens[number] for number in newcomers),
        )

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        self.calls.append(("catch_up", batch.newcomers, window))
        for number in batch.newcomers:
            row, length = int(batch.rows[number]), int(batch.seq_lens[number])
            for slot in range(max(length - window + 1, 0)):
                self.kv[row][slot] = self.committed[row][: slot + 1]

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        self.calls.append(("read_window", window))
        logits = []
        for row, length in zip(batch.rows.tolist(), batch.seq_lens.tolist(), strict=True):
            tokens = self.committed[row]
            start = max(length - window + 1, 0)
            self._check_committed(row, start)
            for slot in range(start, start + window):
                self.kv[row][slot] = tokens[: slot + 1] if slot <= length else GARBAGE
            logits.append(self.model.logits(tokens))
        return torch.tensor(logits)

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        self.calls.append(("read_next", offset))
        logits = []
        for row, length, token in zip(batch.rows.tolist(), batch.seq_lens.tolist(), tokens.tolist(), strict=True):
            before = self.kv[row][length + offset - 1]
            assert before[: length + 1] == self.committed[row] and len(before) == length + offset
            self.kv[row][length + offset] = (*before, token)
            logits.append(self.model.logits((*before, token)))
        return torch.tensor(logits)

    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        self.calls.append(("read_tree", tokens.shape[1]))
        logits = []
        for number, (row, length) in enumerate(zip(batch.rows.tolist(), batch.seq_lens.tolist(), strict=True)):
            self._check_committed(row, length + 1)
            contexts: list[Context] = []
            for node, (token, parent) in enumerate(zip(tokens[number].tolist(), parents[number].tolist(), strict=True)):
                assert -1 <= parent < node, "parents come before their children"
                above = self.committed[row] if parent == -1 else contexts[parent]
                contexts.append((*above, token))
                self.kv[row][length + 1 + node] = GARBAGE
            logits.append([self.model.logits(context) for context in contexts])
        return torch.tensor(logits)

    def commit(self, row: int, accept_tokens: list[int], num_fed: int) -> None:
        """Verification accepted these, the bonus token last. What the drafter says it has fed must be right there."""
        length = len(self.committed[row]) - 1
        self.committed[row] += tuple(accept_tokens)
        for slot in range(length, length + min(num_fed, len(accept_tokens))):
            assert self.kv[row][slot] == self.committed[row][: slot + 1]

    def _check_committed(self, row: int, end: int) -> None:
        for slot in range(end):
            assert self.kv[row].get(slot) == self.committed[row][: slot + 1], f"slot {slot} lacks its token's KV"
