"""The first tokens that a drafter writes behind a committed text, chosen among those that can begin there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from sglang_hetero_spec.vocab.openings import Openings

_KEPT = 4096


@dataclass
class Opening:
    """One request's draft until it has text of its own. held: committed bytes that it must still write; last: the
    bytes of the target's last token."""

    held: bytes
    last: bytes
    is_open: bool = True

    def take(self, piece: bytes | None) -> None:
        """piece: the bytes of the draft token that was written, None where it is no text."""
        self.is_open = piece is not None and len(piece) <= len(self.held)
        self.held = self.held[len(piece or b"") :]


class Chooser:
    """The likeliest tokens that can follow. pieces: the drafter's."""

    def __init__(self, openings: Openings, pieces: Sequence[bytes | None]) -> None:
        self._openings = openings
        self._pieces = pieces
        self._ids = lru_cache(_KEPT)(self._ids_of)

    def choose(self, logits: torch.Tensor, starts: list[Opening]) -> torch.Tensor:
        """Columns [k] int64 of logits [k, m]; the drafts that are still open take theirs."""
        likeliest = logits.argmax(dim=-1)
        if not any(start.is_open for start in starts):
            return likeliest
        for i, token_id in enumerate(likeliest.tolist()):
            start = starts[i]
            if start.is_open:
                if not self._fits(token_id, start):
                    token_id = likeliest[i] = self._likeliest(logits[i], start)
                start.take(self._pieces[token_id])
        return likeliest

    def _fits(self, token_id: int, start: Opening) -> bool:
        if start.held and token_id not in self._openings.beginning(start.held):
            return False
        return token_id not in self._openings.joined(start.last, start.held)

    def _likeliest(self, logits: torch.Tensor, start: Opening) -> int:
        ids = self._ids(start.last, start.held).to(logits.device)
        if not start.held:
            return int(logits.index_fill(0, ids, -torch.inf).argmax())
        return int(ids[logits[ids].argmax()] if len(ids) else logits.argmax())

    def _ids_of(self, last: bytes, held: bytes) -> torch.Tensor:
        """The only ones, or where nothing is held those that are not."""
        joined = self._openings.joined(last, held)
        return _ids(self._openings.beginning(held) - joined if held else joined)


def _ids(found: Iterable[int]) -> torch.Tensor:
    return torch.tensor(sorted(found), dtype=torch.int64)
