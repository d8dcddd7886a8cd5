"""What a drafter with a vocabulary of its own needs: token sequences, and KV, that are not the target's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import torch

from sglang_hetero_spec.drafters.base import DraftModel


class Committed(Protocol):
    def behind(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, starts: list[int], usual: int, fed: Fed | None = None
    ) -> list[list[int]]:
        """The committed tokens of each request from token `starts[i]` to the root. One copy to the host brings up to
        `usual` of each, and what was `fed`. rows, seq_lens: [b], as in DraftBatch."""


class Fed:
    """Draft tokens [k, n] that were proposed and read; brought to the host when they are next looked at, together."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens
        self._rows: list[list[int]] | None = None

    def arrive(self, flat: list[int]) -> None:
        number, width = self.tokens.shape
        self._rows = [flat[i * width : (i + 1) * width] for i in range(number)]

    @property
    def rows(self) -> list[list[int]]:
        if self._rows is None:
            self._rows = self.tokens.tolist()
        return self._rows


class FedRow(Sequence[int]):
    """Those of one request."""

    def __init__(self, fed: Fed, row: int) -> None:
        self.fed, self._row = fed, row

    def __len__(self) -> int:
        return self.fed.tokens.shape[1]

    def __iter__(self) -> Iterator[int]:
        return iter(self.fed.rows[self._row])

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return self.fed.rows[self._row][index]


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

    def committed(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, starts: list[int], fed: Fed | None
    ) -> list[list[int]]:
        """The target's tokens of requests from `starts` to the root. rows, seq_lens: [b], as in DraftBatch. One copy to
        the host brings them, and what was `fed`."""
