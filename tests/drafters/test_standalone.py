"""Chains and trees of the standalone drafter, over a model that checks what it is asked to read."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.growing import SAME_IDS, grow_tree
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from tests.drafters import reference
from tests.drafters.fake_model import FakeDraftModel
from tests.drafters.reference import ContextModel

VOCAB_SIZE = 40
TREES = [(1, 2, 2), (1, 4, 5), (2, 2, 4), (3, 2, 11), (3, 4, 8), (4, 3, 2), (5, 8, 64), (6, 2, 20), (2, 32, 128)]


def drafter(num_steps: int, topk: int, num_draft_tokens: int, model: FakeDraftModel) -> StandaloneDrafter:
    spec = DrafterSpec("d", "standalone", None, "shared", num_steps, topk, num_draft_tokens)
    return StandaloneDrafter(spec, model)


def histories(seed: int, lens: list[int]) -> dict[int, tuple[int, ...]]:
    rng = random.Random(seed)
    return {10 + row: tuple(rng.randrange(VOCAB_SIZE) for _ in range(n)) for row, n in enumerate(lens)}


def fake(seed: int, lens: list[int]) -> FakeDraftModel:
    return FakeDraftModel(ContextModel(VOCAB_SIZE, seed), histories(seed, lens))


def paths(tree: DraftTree, row: int) -> list[tuple[int, ...]]:
    """The tokens from below the root to each node, node by node."""
    parents, tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
    return [tuple(tokens[node] for node in reference.path_to(parents, node)[1:]) for node in range(len(parents))]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 64])
def test_a_chain_is_the_argmax_path(num_steps: int) -> None:
    model = fake(num_steps, [1, 2, 3, 9])
    rows = list(model.committed)
    tree = drafter(num_steps, 1, num_steps + 1, model).propose(model.batch(rows, newcomers=(0, 1, 2, 3)))
    assert tree.tokens.shape == (4, num_steps + 1) and tree.tokens.dtype == torch.int64
    assert (tree.depth, tree.num_fed, tree.is_chain) == (num_steps, num_steps, True)
    for number, row in enumerate(rows):
        root, *drafts = tree.tokens[number].tolist()
        assert root == model.committed[row][-1]
        assert tuple(drafts) == reference.greedy_path(model.model, model.committed[row], num_steps)
    assert model.calls == [
        ("catch_up", (0, 1, 2, 3), 2),
        ("read_window", 2),
        *[("read_next", offset) for offset in range(1, num_steps)],
    ]


@pytest.mark.parametrize(("num_steps", "topk", "num_draft_tokens"), TREES)
@pytest.mark.parametrize("seed", range(4))
def test_a_tree_holds_the_likeliest_nodes_of_the_beam(
    seed: int, num_steps: int, topk: int, num_draft_tokens: int
) -> None:
    model = fake(seed, [1, 2, 12])
    rows = list(model.committed)
    tree = drafter(num_steps, topk, num_draft_tokens, model).propose(model.batch(rows, newcomers=(0, 1, 2)))
    assert tree.tokens.shape == tree.parents.shape == tree.scores.shape == (3, num_draft_tokens)
    assert (tree.depth, tree.num_fed) == (num_steps, 1)
    for number, row in enumerate(rows):
        context = model.committed[row]
        want = reference.likeliest(reference.beam(model.model, context, topk, num_steps), num_draft_tokens - 1)
        root, *nodes = paths(tree, number)
        assert root == () and tree.tokens[number, 0] == context[-1]
        assert sorted(nodes) == sorted(want)
        scores = torch.tensor([0.0, *(want[path] for path in nodes)])
        torch.testing.assert_close(tree.scores[number], scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_steps", "topk", "num_draft_tokens"), TREES)
def test_a_tree_is_well_formed(num_steps: int, topk: int, num_draft_tokens: int) -> None:
    model = fake(99, [5, 1, 30])
    rows = list(model.committed)
    tree = drafter(num_steps, topk, num_draft_tokens, model).propose(model.batch(rows, newcomers=(0, 1, 2)))
    for number in range(len(rows)):
        parents, tokens = tree.parents[number].tolist(), tree.tokens[number].tolist()
        assert parents[0] == -1
        assert all(0 <= parent < node for node, parent in enumerate(parents) if node > 0)
        assert max(map(len, paths(tree, number))) <= tree.depth
        for node in range(num_draft_tokens):
            siblings = [tokens[child] for child in reference.children_of(parents, node)]
            assert len(set(siblings)) == len(siblings) <= topk


def test_likely_ties_keep_parents_before_children() -> None:
    """A sure model gives a child exactly its parent's score: the parent must still be the one that is taken."""

    class Sure(ContextModel):
        def logits(self, context: tuple[int, ...]) -> list[float]:
            return [0.0 if token == sum(context) % self.vocab_size else -1e9 for token in range(self.vocab_size)]

    model = FakeDraftModel(Sure(VOCAB_SIZE, 0), histories(0, [3]))
    for num_draft_tokens in range(2, 9):
        tree = drafter(4, 2, num_draft_tokens, model).propose(model.batch([10], newcomers=(0,)))
        parents = tree.parents[0].tolist()
        assert reference.reachable(parents) == set(range(num_draft_tokens))
        sure = reference.greedy_path(model.model, model.committed[10], min(4, num_draft_tokens - 1))
        assert sure in paths(tree, 0)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_tree_of_one_branch_is_the_chain(num_steps: int) -> None:
    model = fake(5, [4, 8])
    batch = model.batch(list(model.committed), newcomers=(0, 1))
    proposer = drafter(num_steps, 1, num_steps + 1, model)
    chain = proposer.propose(batch)
    tree = grow_tree(proposer.spec, model, batch, model.read_window(batch, 2), batch.root_tokens, SAME_IDS)
    assert torch.equal(tree.tokens, chain.tokens) and torch.equal(tree.parents, chain.parents)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 1, 4), (6, 1, 7), (1, 3, 4), (3, 2, 6), (4, 4, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_every_step_finds_the_kv_it_needs(seed: int, shape: tuple[int, int, int]) -> None:
    """Many steps with any part of a path accepted: the window must cover all that the last step left unread. Requests
    leave and come back as newcomers after others wrote into their slots."""
    rng = random.Random(seed)
    model = fake(seed, [1, 2, 5, 23])
    proposer = drafter(*shape, model)
    readers: set[int] = set()
    for _ in range(25):
        rows = rng.sample(sorted(model.committed), rng.randint(1, 4))
        newcomers = tuple(number for number, row in enumerate(rows) if row not in readers)
        tree = proposer.propose(model.batch(rows, newcomers))
        readers.update(rows)
        for number, row in enumerate(rows):
            path = rng.choice(paths(tree, number))
            model.commit(row, [*path, rng.randrange(VOCAB_SIZE)], tree.num_fed)
            if rng.random() < 0.2:
                readers.discard(row)
                model.committed[row] += (3,)
                model.kv[row].clear()


def test_newcomers_alone_are_caught_up() -> None:
    model = fake(0, [6, 7])
    proposer = drafter(2, 1, 3, model)
    proposer.propose(model.batch([10], newcomers=(0,)))
    model.calls.clear()
    proposer.propose(model.batch([10, 11], newcomers=(1,)))
    assert model.calls[0] == ("catch_up", (1,), 2)
    model.calls.clear()
    proposer.propose(model.batch([10, 11]))
    assert model.calls[0] == ("read_window", 2)


def test_max_seq_len_is_what_the_checkpoint_was_made_for() -> None:
    spec = DrafterSpec("d", "standalone", None, "shared", 2, 1, 3)
    model = fake(0, [1])
    assert StandaloneDrafter(spec, model, 512).max_seq_len == 512
    assert StandaloneDrafter(spec, model).max_seq_len is None
