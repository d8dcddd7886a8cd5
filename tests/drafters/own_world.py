"""Requests of a drafter with its own vocabulary, from batch to batch: what it proposes, what is committed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.own_vocab import OwnVocabDrafter
from sglang_hetero_spec.drafters.slem import SlemDrafter
from sglang_hetero_spec.drafters.slrs import SlrsDrafter, psi_plan
from sglang_hetero_spec.drafters.text_tree import TextTree
from sglang_hetero_spec.drafters.tli import TliDrafter
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.vocab.pairing import Pairing
from tests.drafters import reference
from tests.drafters.fake_sequences import FakeSequences
from tests.drafters.reference import ContextModel
from tests.drafters.tiny_vocab import pairing


class SeededSampler:
    """drafters.base.Sampler with coins of ours and no filters. A draft depends on its request's number alone."""

    def __init__(self, temperatures: torch.Tensor, coins: torch.Tensor) -> None:
        self.temperatures = temperatures
        self._coins = coins

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        probs = (logits / self.temperatures).softmax(-1)
        return self._columns(probs, step), probs

    def draw_from(self, probs: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._columns(torch.cat((probs, 1 - probs.sum(-1, keepdim=True)), dim=-1), step), probs

    def _columns(self, probs: torch.Tensor, step: int) -> torch.Tensor:
        return (
            torch.searchsorted(probs.cumsum(-1), self._coins[:, step : step + 1])
            .squeeze(1)
            .clamp(max=probs.shape[1] - 1)
        )

    def select(self, numbers: list[int]) -> SeededSampler:
        return SeededSampler(self.temperatures[numbers], self._coins[numbers])


@dataclass
class World:
    """rows of the target's table are 0, 1, ...; request i has row i and the name `r<i>`."""

    mode: str
    pairing: Pairing
    drafter: OwnVocabDrafter
    sequences: FakeSequences
    committed: dict[int, list[int]]

    @property
    def num_target(self) -> int:
        return len(self.pairing.target.table)

    def propose(self, numbers: Sequence[int], sampler: SeededSampler | None = None) -> DraftTree:
        self.sequences.contexts.clear()
        return self.drafter.propose(self.batch(numbers, sampler))

    def batch(self, numbers: Sequence[int], sampler: SeededSampler | None = None) -> DraftBatch:
        lens = [len(self.committed[n]) - 1 for n in numbers]
        return DraftBatch(
            rows=torch.tensor(list(numbers)),
            seq_lens=torch.tensor(lens),
            root_tokens=torch.tensor([self.committed[n][-1] for n in numbers]),
            rids=tuple(f"r{n}" for n in numbers),
            sampler=sampler,
        )

    def add(self, number: int, prompt: list[int]) -> None:
        self.committed[number] = prompt
        self.drafter.admit(f"r{number}")

    def history(self, number: int) -> tuple[int, ...]:
        return tuple(self.drafter._readings[f"r{number}"].history.tokens)

    def own_row(self, number: int) -> int | None:
        return self.sequences.row(f"r{number}")

    def draft_logits(self, context: tuple[int, ...]) -> list[float]:
        return self.sequences.model.model.logits(context)


def make_world(
    mode: str, vocab: str, *, num_steps: int = 3, topk: int = 1, width: int = 0, seed: int = 0, **sizes: int
) -> World:
    """width: nodes of a tree where that does not follow from num_steps. sizes: of FakeSequences."""
    sides = pairing(vocab)
    spec = DrafterSpec("d", "standalone", None, mode, num_steps, topk, width or num_steps + 1)
    model = ContextModel(len(sides.draft.table), seed)
    committed: dict[int, list[int]] = {}
    logit_ids = sides.shared.draft_ids.tolist() if mode == "tli" else None
    sequences = FakeSequences(model, committed, logit_ids=logit_ids, **sizes)
    drafter: OwnVocabDrafter
    if mode == "tli":
        drafter = TliDrafter(spec, sequences, sides, "cpu")
    elif mode == "slem":
        drafter = SlemDrafter(spec, sequences, sides)
    else:
        drafter = SlrsDrafter(spec, sequences, sides, TextTree(psi_plan(sides), len(sides.target.table), "cpu"))
    return World(mode, sides, drafter, sequences, committed)


def random_tokens(rng: random.Random, world: World, count: int) -> list[int]:
    return [rng.randrange(world.num_target) for _ in range(count)]


def accepted_path(rng: random.Random, tree: DraftTree, number: int) -> list[int]:
    """Some drafts that verification could accept, in their order."""
    tokens, parents = tree.tokens[number].tolist(), tree.parents[number].tolist()
    node = rng.choice(sorted(reference.reachable(parents)))
    void = None if tree.law is None or tree.law.void is None else tree.law.void[number].tolist()
    path = []
    for place in reference.path_to(parents, node)[1:]:
        if void is not None and void[place - 1]:
            break
        path.append(tokens[place])
    return path
