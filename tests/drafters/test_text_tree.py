"""psi by forwards of a tree, for many requests at once, is psi as it is defined, one sequence after the other."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.slrs import psi_plan
from sglang_hetero_spec.drafters.text_tree import PART, TextTree
from sglang_hetero_spec.vocab.intersection import intersect
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.vocab.psi import Drafter, compute_psi
from sglang_hetero_spec.vocab.psi_rules import LongestMatch
from tests.drafters.fake_sequences import FakeSequences
from tests.drafters.own_world import SeededSampler, World, make_world, random_tokens
from tests.drafters.tiny_vocab import NAMES, pairing
from tests.vocab.sides import side_of


def defined_psi(
    sides: Pairing, sequences: FakeSequences, context: tuple[int, ...], temperature: float
) -> tuple[list[float], float]:
    """psi of each target id, and the mass that is no target token."""
    target, draft, shared = sides.target, sides.draft.table, sides.shared
    ends = {i: int(t) for i, t in enumerate(shared.draft_to_target) if t >= 0 and draft.piece(i) is None}
    tokens = {piece: target.canonical(piece) for piece in target.table.ids_by_bytes}

    def forward(behind: list[tuple[int, ...]]) -> list[list[float]]:
        rows = torch.tensor([sequences.model.logits((*context, *each)) for each in behind], dtype=torch.float64)
        return (rows / temperature).softmax(-1).tolist()

    psi = compute_psi(forward, Drafter(draft.pieces, ends), LongestMatch(tokens))
    mass = [psi.mass.get(i, 0.0) for i in range(len(target.table))]
    return mass, 1 - sum(mass)


def whole_law(world: World, numbers: list[int], temperatures: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The law of the first draft and its void flags, as the drafter gives them."""
    sampler = SeededSampler(torch.tensor(temperatures).unsqueeze(1), torch.full((len(numbers), 8), 0.999999))
    tree = world.propose(numbers, sampler)
    return tree.law.over_target(world.num_target)[:, 0], tree.law.void[:, 0]


@pytest.mark.parametrize("vocab", NAMES)
def test_the_drafts_law_is_psi(vocab: str) -> None:
    """Each request with its own context and temperature. The last column is what is no target token."""
    rng = random.Random(vocab)
    world = make_world("slrs", vocab)
    for number in range(4):
        world.add(number, [0, *random_tokens(rng, world, 2 * number)])
    temperatures = [1.0, 0.5, 2.0, 1.0]
    law, void = whole_law(world, [0, 1, 2, 3], temperatures)
    some_void = False
    for number, temperature in enumerate(temperatures):
        mass, rest = defined_psi(world.pairing, world.sequences, world.history(number), temperature)
        assert law[number].tolist() == pytest.approx(mass, abs=1e-6)
        assert bool(void[number]) == (rest > 2e-6)
        some_void |= rest > 0.01
    assert some_void == (vocab in ("partial", "ambiguous", "specials"))


def test_it_is_the_law_behind_the_drafts_before_too() -> None:
    world = make_world("slrs", "ambiguous", num_steps=3)
    world.add(0, [0, 1, 2, 0])
    tree = world.propose([0], SeededSampler(torch.ones(1, 1), torch.full((1, 8), 0.2)))
    drafts, void = tree.tokens[0, 1:].tolist(), tree.law.void[0].tolist()
    assert void == [False] * 3
    context = world.history(0)
    for place in range(3):
        mass, _ = defined_psi(world.pairing, world.sequences, context, 1.0)
        assert tree.law.probs[0, place].tolist() == pytest.approx(mass, abs=1e-6)
        context += tuple(world.pairing.shared.read_as(drafts[place]).tolist())


def test_a_greedy_draft_is_the_likeliest_token_of_psi() -> None:
    for vocab in NAMES:
        world = make_world("slrs", vocab, num_steps=1, seed=3)
        world.add(0, [0, 1, 0])
        tree = world.propose([0])
        mass, _ = defined_psi(world.pairing, world.sequences, world.history(0), 1.0)
        assert tree.law is None and tree.tokens[0, 1] == mass.index(max(mass))


def test_many_texts_are_read_in_parts() -> None:
    """A drafter of bytes behind a target of long tokens: the plan's own psi of the same rows."""
    sides = Pairing(side_of("gpt2"), side_of("bytes"), intersect(side_of("gpt2"), side_of("bytes")))
    plan = psi_plan(sides)
    num_target, num_draft = len(sides.target.table), len(sides.draft.table)
    assert len(plan.sequences) > 3 * PART
    tree = TextTree(plan, num_target, "cpu")
    model = Rows(plan, num_draft)
    temperatures = torch.tensor([[0.7], [1.5]])
    found = tree.psi(model, None, model.root, temperatures)
    assert tree.width == max(model.widths) and len(model.widths) > 3 and found.dtype == torch.float32
    for number in range(2):
        rows = (model.rows[number].double() / temperatures[number]).softmax(-1)
        mass, _ = plan.psi(rows.numpy(), num_target)
        assert found[number].tolist() == pytest.approx(mass.tolist(), abs=1e-6)


class Rows:
    """drafters.base.DraftModel whose logits hang on the text's number in the plan, and on the request's."""

    def __init__(self, plan, num_draft: int) -> None:
        self._number = {sequence: i for i, sequence in enumerate(plan.sequences)}
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(2, len(plan.sequences), num_draft, generator=generator) * 2
        self.root = self.rows[:, 0]
        self.widths: list[int] = []

    def read_tree(self, batch: object, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        self.widths.append(tokens.shape[1])
        assert torch.equal(tokens[0], tokens[-1]) and torch.equal(parents[0], parents[-1])
        texts: list[tuple[int, ...]] = []
        for token, parent in zip(tokens[0].tolist(), parents[0].tolist(), strict=True):
            texts.append((*(texts[parent] if parent >= 0 else ()), token))
        return self.rows[: len(tokens), [self._number[text] for text in texts]]


def test_a_part_is_not_larger_than_its_room() -> None:
    for vocab in NAMES:
        sides = pairing(vocab)
        plan = psi_plan(sides)
        assert TextTree(plan, len(sides.target.table), "cpu").width <= len(plan.sequences)
