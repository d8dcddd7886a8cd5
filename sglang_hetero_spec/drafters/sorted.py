"""`sorted`: a draft model with nested sub-models proposes a chain, each token from the first that is sure of it.

Source: S2D (arXiv 2407.01955). A sub-model is the first layers of the model, with its final norm and head. Which one a
draft comes from depends on nothing but the tokens before it, so a draft that was drawn at random has one law, that of
the sub-model it was drawn from, and verification is that of any chain.

Beyond the paper: a draft is looked at only where all drafts before it are right, so what a deeper sub-model could put
right counts by how likely that is. Behind a doubtful draft less sureness suffices (`sure_enough`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.growing import grow
from sglang_hetero_spec.drafters.tree import DraftTree, finite
from sglang_hetero_spec.pool import DrafterSpec

# Committed tokens that are read again: the last draft of a chain was never read, and the root.
WINDOW = 2


class SortedModel(Protocol):
    """Forwards of a draft model that can be left behind some of its layers; as `base.DraftModel`, but for its first
    sub-model. Exits are numbered from 0."""

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        """Write the KV of all layers of everything that the newcomers lack before their last `window` tokens."""

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        """Read the last `window` committed tokens, the root being the last; logits after the root, [b, V]."""

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        """Read one more token, `offset` places behind the root, tokens [b]; logits after it, [b, V]."""

    def read_deeper(self, batch: DraftBatch, exit: int, members: Sequence[int]) -> torch.Tensor:
        """Bring the tokens that these of the b requests read last from exit - 1 to `exit`, and with them whatever was
        left behind there; logits [members, V]."""


class SortedDrafter(Drafter):
    def __init__(self, spec: DrafterSpec, model: SortedModel, max_seq_len: int | None = None) -> None:
        super().__init__(spec)
        self._model = _FirstSure(model, spec.thresholds)
        self._max_seq_len = max_seq_len

    @property
    def lane(self) -> Hashable:
        return id(self)

    @property
    def max_seq_len(self) -> int | None:
        return self._max_seq_len

    def propose(self, batch: DraftBatch) -> DraftTree:
        window = max(WINDOW, batch.lag + 1)
        if batch.newcomers:
            self._model.catch_up(batch, window)
        logits = self._model.read_window(batch, window)
        tree = grow(self.spec, self._model, batch, logits, batch.root_tokens)
        # The model knows how far each token went; to the worker none has all its KV yet.
        return replace(tree, num_fed=0)


class _FirstSure:
    """A sorted model as a `base.DraftModel` of chains: each request's logits are those of the first sub-model that is
    sure enough, or of the last."""

    def __init__(self, model: SortedModel, thresholds: Sequence[float]) -> None:
        self._model, self._thresholds = model, thresholds
        self.catch_up = model.catch_up

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        # How likely all drafts of each request are right so far.
        self._standing = torch.ones(len(batch.rows))
        return self._first_sure(batch, self._model.read_window(batch, window))

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        return self._first_sure(batch, self._model.read_next(batch, tokens, offset))

    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("A sorted drafter proposes chains (pool/entries/sorted.py refuses others).")

    def _first_sure(self, batch: DraftBatch, logits: torch.Tensor) -> torch.Tensor:
        if not self._thresholds:
            return logits
        members, found = list(range(len(logits))), confidence(logits)
        for exit, threshold in enumerate(self._thresholds, start=1):
            is_sure = sure_enough(found, self._standing, threshold).tolist()
            members = [member for member in members if not is_sure[member]]
            if not members:
                break
            newest = self._model.read_deeper(batch, exit, members)
            if len(members) == len(logits):
                logits, found = newest, confidence(newest)
            else:
                places = torch.tensor(members)
                logits = logits.index_copy(0, places, newest)
                found = found.index_copy(0, places, confidence(newest))
        self._standing = self._standing * found
        return logits


def sure_enough(confidences: torch.Tensor, standing: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where to leave, bool [b]: the doubt about this draft, 1 - confidence, by how likely those before it are right
    (standing, [b]), is no more than the threshold allows for the first one of a chain."""
    return (1 - confidences) * standing <= 1 - threshold


def confidence(logits: torch.Tensor) -> torch.Tensor:
    """The largest probability of each row, [b] float32. logits: [b, V]."""
    logits = finite(logits)
    return (logits.amax(dim=-1) - logits.logsumexp(dim=-1)).exp()
