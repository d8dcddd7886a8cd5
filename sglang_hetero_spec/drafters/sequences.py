"""What a drafter with a vocabulary of its own needs: token sequences, and KV, that are not the target's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch

from sglang_hetero_spec.drafters.base import DraftModel


class Sequences(Protocol):
    """Own sequences of draft tokens with KV slots of their own, by request. All numbers are on the host.

    model reads them: `DraftBatch.rows` are the rows given out here, `seq_lens` the own lengths without the last token.
    max_len: draft tokens that a sequence can have, proposals included.
    """

    model: DraftModel
    max_len: int

    def open(self, rid: str, busy: Collection[str]) -> int | None:
        """A row for this request, or None where all are in use. Requests that are not `busy` may lose theirs."""

    def reserve(self, rid: str, length: int, busy: Collection[str]) -> bool:
        """Slots for the first `length` tokens; False where there are not as many. May take those of others, as open."""

    def row(self, rid: str) -> int | None:
        """The request's row, None where it has none (any more): then nothing of it is written."""

    def close(self, rid: str) -> None:
        """Give row and slots back. Of a request without any: nothing."""

    def write(self, rows: Sequence[int], positions: Sequence[int], tokens: Sequence[int]) -> None:
        """Put draft tokens where the model reads them."""

    def read_range(self, rows: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> None:
        """Write the KV of the tokens [start, end) of each row."""

    def committed(self, rows: torch.Tensor, starts: Sequence[int], ends: Sequence[int]) -> list[list[int]]:
        """The target's tokens [start, end) of requests. rows: [b], theirs in SGLang's table."""
