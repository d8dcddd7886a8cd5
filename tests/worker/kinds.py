"""Drafters of each kind over models of a few tokens: what each could propose for one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter, Sampler
from sglang_hetero_spec.drafters.lora import LoraDrafter
from sglang_hetero_spec.drafters.ngram import NgramDrafter
from sglang_hetero_spec.drafters.sorted import SortedDrafter
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.committed import CommittedTokens
from sglang_hetero_spec.worker.history import TokenHistory
from tests.drafters.fake_model import FakeDraftModel
from tests.drafters.reference import ContextModel

VOCAB_SIZE = 4
# What followed `1 2` before: 3, 0 and 1, so n-grams have siblings to propose.
PROMPT = (1, 2, 3, 0, 1, 2, 0, 3, 1, 2, 1, 2, 3, 1, 2)
BASE, ADAPTERS = 0, (1, 2)
EXITS, THRESHOLDS = (1, 2, 3), (0.75, 0.6)


class Adapted:
    """A base and its adapters: a model of its own for each, as `FakeDraftModel` asks for its logits."""

    vocab_size = VOCAB_SIZE

    def __init__(self, numbers: Sequence[int]) -> None:
        self.models = {number: ContextModel(VOCAB_SIZE, 10 + number) for number in numbers}
        self.serving: list[int] = []

    def logits(self, context: tuple[int, ...]) -> list[float]:
        raise AssertionError("asked for without an adapter")


class AdaptedModel(FakeDraftModel):
    """The same forward for requests of different drafters, each read with its own adapter."""

    def __init__(self, adapted: Adapted, committed: dict[int, tuple[int, ...]]) -> None:
        super().__init__(ContextModel(VOCAB_SIZE, 0), committed)
        self.adapted = adapted

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        super().read_window(batch, window)
        return self._adapted(batch, [self.committed[row] for row in batch.rows.tolist()])

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        super().read_next(batch, tokens, offset)
        ends = (batch.seq_lens + offset).tolist()
        return self._adapted(batch, [self.kv[row][end] for row, end in zip(batch.rows.tolist(), ends, strict=True)])

    def _adapted(self, batch: DraftBatch, contexts: list[tuple[int, ...]]) -> torch.Tensor:
        numbers = [BASE] * len(contexts) if batch.drafters is None else batch.drafters
        return torch.tensor(
            [self.adapted.models[number].logits(context) for number, context in zip(numbers, contexts, strict=True)]
        )


class ExitsModel(FakeDraftModel):
    """drafters.sorted.SortedModel: each exit says something else. left: how many requests went to each exit."""

    def __init__(self, committed: dict[int, tuple[int, ...]]) -> None:
        super().__init__(ContextModel(VOCAB_SIZE, 23), committed)
        self.exits = [self.model, *(ContextModel(VOCAB_SIZE, 23 + exit) for exit in range(1, len(EXITS)))]
        self.reached = [0] * len(EXITS)
        self._newest: list[tuple[int, ...]] = []

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        self._newest = [self.committed[row] for row in batch.rows.tolist()]
        self.reached[0] += len(self._newest)
        return super().read_window(batch, window)

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        logits = super().read_next(batch, tokens, offset)
        ends = (batch.seq_lens + offset).tolist()
        self._newest = [self.kv[row][end] for row, end in zip(batch.rows.tolist(), ends, strict=True)]
        self.reached[0] += len(self._newest)
        return logits

    def read_deeper(self, batch: DraftBatch, exit: int, members: Sequence[int]) -> torch.Tensor:
        self.reached[exit] += len(members)
        return torch.tensor([self.exits[exit].logits(self._newest[member]) for member in members])


@dataclass
class Kind:
    """A drafter and the b requests with the text PROMPT that it serves, in rows 0 .. b - 1."""

    drafter: Drafter
    num_requests: int
    sampler: Sampler | None = None
    drafters: torch.Tensor | None = None
    wants_scores: bool = False
    model: FakeDraftModel | None = field(default=None)

    def propose(self) -> DraftTree:
        numbers = tuple(range(self.num_requests))
        names = tuple(f"r{number}" for number in numbers)
        length = len(PROMPT) - 1
        for name in names:
            self.drafter.admit(name)
        return self.drafter.propose(
            DraftBatch(
                rows=torch.tensor(numbers),
                seq_lens=torch.full((self.num_requests,), length),
                root_tokens=torch.full((self.num_requests,), PROMPT[-1]),
                newcomers=numbers,
                newcomer_lens=(length,) * self.num_requests,
                rids=names,
                sampler=self.sampler,
                drafters=self.drafters,
                wants_scores=self.wants_scores,
            )
        )

    def asked(self, sampler: Sampler | None = None, wants_scores: bool = False) -> Kind:
        return replace(self, sampler=sampler, wants_scores=wants_scores)


def _texts(num_requests: int) -> dict[int, tuple[int, ...]]:
    return dict.fromkeys(range(num_requests), PROMPT)


def _spec(kind: str, num_steps: int, topk: int = 1, num_draft_tokens: int = 0, **fields: object) -> DrafterSpec:
    return DrafterSpec("d", kind, None, "shared", num_steps, topk, num_draft_tokens or num_steps + 1, **fields)


def standalone(num_requests: int, num_steps: int = 2) -> Kind:
    model = FakeDraftModel(ContextModel(VOCAB_SIZE, 1), _texts(num_requests))
    return Kind(StandaloneDrafter(_spec("standalone", num_steps), model), num_requests, model=model)


def standalone_tree(num_requests: int) -> Kind:
    model = FakeDraftModel(ContextModel(VOCAB_SIZE, 1), _texts(num_requests))
    return Kind(StandaloneDrafter(_spec("standalone", 2, 2, 6), model), num_requests, model=model)


def lora(num_requests: int, num_steps: int = 2) -> Kind:
    """Requests of the base and of all adapters in turn, in one forward."""
    numbers = [(BASE, *ADAPTERS)[number % 3] for number in range(num_requests)]
    model = AdaptedModel(Adapted((BASE, *ADAPTERS)), _texts(num_requests))
    drafter = LoraDrafter(_spec("lora", num_steps), model, number=ADAPTERS[0])
    return Kind(drafter, num_requests, drafters=tuple(numbers), model=model)


def sorted_exits(num_requests: int, num_steps: int = 2) -> Kind:
    model = ExitsModel(_texts(num_requests))
    spec = _spec("sorted", num_steps, exits=EXITS, thresholds=THRESHOLDS)
    return Kind(SortedDrafter(spec, model), num_requests, model=model)


def ngram(num_requests: int) -> Kind:
    history = TokenHistory(num_requests, 64, "cpu")
    history.tokens[:, : len(PROMPT)] = torch.tensor(PROMPT)
    committed = CommittedTokens()
    committed.attach(history)
    return Kind(NgramDrafter(_spec("ngram", 3, 3, 7, capacity=1 << 10), committed, VOCAB_SIZE), num_requests)
