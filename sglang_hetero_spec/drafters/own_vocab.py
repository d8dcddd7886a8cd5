"""A drafter with its own vocabulary keeps its own sequence of each request, and follows the target's with it.

Before each proposal it takes what the target has committed since, finds how much of what it proposed is still right,
and reads the rest. How target tokens become draft tokens, and drafts become target tokens, is the subclass's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device
from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.sequences import FedRow, Sequences
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.boundary import CONTEXT_TOKENS
from sglang_hetero_spec.vocab.draft_history import Change

# What a request lacks beyond this is read by itself; up to it all requests of a batch are read in one window.
MAX_WINDOW = 16


class History(Protocol):
    """A request's committed text in draft tokens (vocab.mapped_history, vocab.draft_history)."""

    tokens: list[int]

    def commit(self, target_tokens: Sequence[int], proposed: Sequence[int] = ()) -> Change: ...


@dataclass
class Reading:
    """One request as the drafter reads it.

    num_seen: target tokens taken. context: the last of them. num_written: draft tokens that stand in the sequences.
    num_read: of these with proposals, those whose KV is right. fed: proposals that were read behind `history.tokens`.
    """

    history: History
    num_seen: int = 0
    context: list[int] = field(default_factory=list)
    num_written: int = 0
    num_read: int = 0
    fed: Sequence[int] = ()

    def take(self, target_tokens: list[int]) -> None:
        num_old = len(self.history.tokens)
        change = self.history.commit(target_tokens, self.fed)
        self.num_seen += len(target_tokens)
        self.context = [*self.context, *target_tokens[-CONTEXT_TOKENS:]][-CONTEXT_TOKENS:]
        self.num_read = min(self.num_read, change.num_keep)
        self.num_written = min(self.num_written, num_old, change.num_keep)
        self.fed = ()

    def forget(self) -> None:
        """Of what stood in a row that was lost."""
        self.num_written = self.num_read = 0
        self.fed = ()


@dataclass(frozen=True)
class OwnBatch:
    """The requests of a batch that can be drafted for, k of b. batch: in own rows, with own lengths; roots: [k] target
    ids; rows: the own rows on the host."""

    readings: list[Reading]
    batch: DraftBatch
    roots: torch.Tensor
    rows: list[int]


class OwnVocabDrafter(Drafter):
    """room: draft tokens behind the committed ones that one proposal may write."""

    def __init__(self, spec: DrafterSpec, sequences: Sequences, room: int) -> None:
        super().__init__(spec)
        self.sequences = sequences
        self.room = room
        self._readings: dict[str, Reading] = {}

    @property
    def lane(self) -> Hashable:
        return id(self.sequences)

    @property
    def waits(self) -> bool:
        return True

    @abstractmethod
    def new_history(self) -> History:
        """Of a request that nothing is known of."""

    @abstractmethod
    def draft(self, own: OwnBatch, logits: torch.Tensor) -> DraftTree:
        """Trees of spec.num_draft_tokens nodes for the k requests. logits: [k, m] after their last tokens."""

    def admit(self, rid: str) -> None:
        self._readings[rid] = Reading(self.new_history())

    def release(self, rid: str) -> None:
        del self._readings[rid]
        self.sequences.close(rid)

    def propose(self, batch: DraftBatch) -> DraftTree:
        readings = [self._readings[rid] for rid in batch.rids]
        self._take_commits(batch, readings)
        numbers = [i for i, reading in enumerate(readings) if self._has_room(batch.rids[i], reading, batch.rids)]
        if not numbers:
            return nothing(batch.root_tokens, self.spec.num_draft_tokens)
        own = self._own_batch(batch, numbers, [readings[i] for i in numbers])
        tree = self.draft(own, self._read(own))
        return tree if len(numbers) == len(readings) else _among(tree, numbers, batch.root_tokens)

    def _take_commits(self, batch: DraftBatch, readings: list[Reading]) -> None:
        starts = [reading.num_seen for reading in readings]
        # There are more of them where the batch has changed: the others are asked for one by one.
        first = next((reading.fed.fed for reading in readings if isinstance(reading.fed, FedRow)), None)
        found = self.sequences.committed(batch.rows, batch.seq_lens, starts, first)
        for reading, new in zip(readings, found, strict=True):
            reading.take(new)

    def _has_room(self, rid: str, reading: Reading, busy: Sequence[str]) -> bool:
        length = len(reading.history.tokens)
        longest = max(length + self.room, MAX_WINDOW)
        if longest > self.sequences.max_len:
            self.sequences.close(rid)  # others can use what it will not need again
            return False
        if not length:
            return False
        if self.sequences.row(rid) is None:
            reading.forget()
            if self.sequences.open(rid, busy) is None:
                return False
        return self.sequences.reserve(rid, longest, busy)

    def _own_batch(self, batch: DraftBatch, numbers: list[int], readings: list[Reading]) -> OwnBatch:
        rows = [self.sequences.row(batch.rids[i]) or 0 for i in numbers]
        self._write(rows, readings)
        numbers_of = [
            [row, len(r.history.tokens) - 1, r.history.tokens[-1]] for row, r in zip(rows, readings, strict=True)
        ]
        host = torch.tensor(numbers_of).T.contiguous()
        own_rows, lens, last = from_host(host, batch.rows.device)
        is_all = len(numbers) == len(batch.rids)
        own = DraftBatch(
            rows=own_rows,
            seq_lens=lens,
            root_tokens=last,
            seq_lens_cpu=None if batch.seq_lens_cpu is None else host[1],
            rids=batch.rids if is_all else tuple(batch.rids[i] for i in numbers),
            sampler=batch.sampler if is_all or batch.sampler is None else batch.sampler.select(numbers),
            wants_scores=batch.wants_scores,
        )
        roots = batch.root_tokens if is_all else batch.root_tokens[kept_on_device(numbers, batch.rows.device)]
        return OwnBatch(readings, own, roots, rows)

    def _write(self, rows: list[int], readings: list[Reading]) -> None:
        at: list[int] = []
        positions: list[int] = []
        tokens: list[int] = []
        for row, reading in zip(rows, readings, strict=True):
            new = reading.history.tokens[reading.num_written :]
            at += [row] * len(new)
            positions += range(reading.num_written, reading.num_written + len(new))
            tokens += new
            reading.num_written += len(new)
        self.sequences.write(at, positions, tokens)

    def _read(self, own: OwnBatch) -> torch.Tensor:
        """Everything that the requests lack, their last tokens at least. Logits after these, [k, m]."""
        lens = [len(reading.history.tokens) for reading in own.readings]
        behind = [i for i, reading in enumerate(own.readings) if lens[i] - reading.num_read > MAX_WINDOW]
        if behind:
            rows = [own.rows[i] for i in behind]
            self.sequences.read_range(rows, [own.readings[i].num_read for i in behind], [lens[i] - 1 for i in behind])
            for i in behind:
                own.readings[i].num_read = lens[i] - 1
        window = max(1, *(length - reading.num_read for length, reading in zip(lens, own.readings, strict=True)))
        for length, reading in zip(lens, own.readings, strict=True):
            reading.num_read = length
        return self.sequences.model.read_window(own.batch, window)


def nothing(root_tokens: torch.Tensor, width: int) -> DraftTree:
    """The root alone, for every request. root_tokens: [b]."""
    tokens = root_tokens.unsqueeze(1).repeat(1, width)
    return DraftTree(
        tokens=tokens,
        parents=torch.full_like(tokens, NO_NODE),
        depth=0,
        num_fed=0,
        num_proposed=(0,) * len(root_tokens),
    )


def _among(tree: DraftTree, numbers: list[int], root_tokens: torch.Tensor) -> DraftTree:
    """The trees of some requests of a batch, and the root alone for the others. numbers: theirs, [k]."""
    wide = nothing(root_tokens, tree.width)
    rows = kept_on_device(numbers, root_tokens.device)
    wide.tokens[rows], wide.parents[rows] = tree.tokens, tree.parents
    proposed = [0] * len(root_tokens)
    for number, count in zip(numbers, tree.proposed, strict=True):
        proposed[number] = count
    scores = None
    if tree.scores is not None:
        scores = tree.scores.new_zeros(len(root_tokens), tree.width)
        scores[rows] = tree.scores
    law = tree.law
    if law is not None:
        probs = law.probs.new_zeros(len(root_tokens), *law.probs.shape[1:])
        probs[rows] = law.probs
        void = None if law.void is None else law.void.new_zeros(len(root_tokens), law.void.shape[1])
        if void is not None:
            void[rows] = law.void
        law = replace(law, probs=probs, void=void)
    return replace(wide, depth=tree.depth, num_fed=tree.num_fed, law=law, num_proposed=tuple(proposed), scores=scores)
