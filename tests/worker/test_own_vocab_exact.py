"""TLI, SLEM and SLRS end to end on vocabularies of a few tokens: over all drafts that the drafter could draw and all
coins of verification the emitted tokens have the target's law."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sglang_hetero_spec.drafters.base import Sampler
from sglang_hetero_spec.drafters.tree import DraftTree
from tests.drafters.own_world import World, make_world
from tests.drafters.test_text_tree import defined_psi
from tests.drafters.tiny_vocab import NAMES, WITH_SHARED
from tests.worker import drafted
from tests.worker.drafted import Proposed, Steered, Target, all_drawn
from tests.worker.enumeration import GREEDY, Params
from tests.worker.test_sampling_exact import one_rank

__all__ = ["one_rank"]

pytestmark = pytest.mark.usefixtures("one_rank")

PARAMS = {
    "temperature 1": Params(),
    "all filters": Params(1.3, top_k=4, top_p=0.9, min_p=0.1),
    "greedy": GREEDY,
}
NUM_STEPS = 2
PROMPT = [0, 1, 2, 0]


def check(world: World, params: Params, monkeypatch: pytest.MonkeyPatch) -> float:
    """Returns how likely one draft or more is accepted."""
    num_columns = {"tli": len(world.pairing.shared.draft_ids), "slrs": world.num_target + 1, "slem": 1}[world.mode]

    def propose(count: int, sampler: Sampler) -> DraftTree:
        for number in range(count):
            world.add(number, list(PROMPT))
        return world.propose(range(count), sampler)

    drawn = all_drawn(params, num_columns, NUM_STEPS, propose)
    return drafted.check([drawn], PROMPT, world.num_target, monkeypatch)[0]


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("vocab", WITH_SHARED)
def test_tli_is_exact(vocab: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    check(make_world("tli", vocab, num_steps=NUM_STEPS, max_len=64, num_rows=80), params, monkeypatch)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("vocab", NAMES)
def test_slrs_is_exact(vocab: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that is no target token, text that is spelled in many ways, ends, no token in common."""
    check(make_world("slrs", vocab, num_steps=NUM_STEPS, max_len=96, num_rows=80), params, monkeypatch)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("vocab", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_slem_is_exact(seed: int, vocab: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it proposes is no draw, so its trees are verified as any tree is."""
    check_chosen(make_world("slem", vocab, num_steps=4, width=6, seed=seed), params, monkeypatch)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("vocab", ["partial", "specials", "the same"])
def test_trees_of_tli_are_exact(vocab: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    check_chosen(make_world("tli", vocab, num_steps=2, topk=2, width=6), params, monkeypatch)


def check_chosen(world: World, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is the drafter's choice, however its request samples."""
    world.add(0, list(PROMPT))
    tree = world.propose([0], Steered([params], torch.zeros((1, 4), dtype=torch.int64)))
    assert tree.law is None
    chosen = Proposed(replace(tree, num_proposed=None), [1.0], params)
    drafted.check([chosen], PROMPT, world.num_target, monkeypatch)


@pytest.mark.parametrize(("mode", "vocab"), [("tli", "the same"), ("tli", "partial"), ("slrs", "ambiguous")])
def test_drafts_are_accepted_as_often_as_theory_says(mode: str, vocab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of min(p, q'), q' being the drafter's law over target tokens; more than by the rule that knows no law."""
    world = make_world(mode, vocab, num_steps=NUM_STEPS, max_len=96, num_rows=80)
    accepted = check(world, Params(), monkeypatch)
    p, q = Target(PROMPT, world.num_target, Params()).law(()), torch.zeros(world.num_target, dtype=torch.float64)
    shared = world.pairing.shared
    if mode == "slrs":
        q[:] = torch.tensor(defined_psi(world.pairing, world.sequences, world.history(0), 1.0)[0])
    else:
        logits = torch.tensor(world.draft_logits(world.history(0))).double()[shared.draft_ids.tolist()]
        q[shared.draft_to_target[shared.draft_ids].tolist()] = logits.softmax(-1)
    assert accepted == pytest.approx(torch.minimum(p, q).sum().item(), abs=1e-4)
    assert accepted > (p * q).sum().item() + 0.02
