"""TLI, SLEM and SLRS end to end on vocabularies of a few tokens: over all drafts that the drafter could draw and all
coins of verification the emitted tokens have the target's law."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from sglang_hetero_spec.drafters.base import Sampler
from sglang_hetero_spec.drafters.tree import DraftLaw, DraftTree
from tests.drafters.own_world import World, make_world
from tests.drafters.reference import ContextModel
from tests.drafters.test_text_tree import defined_psi
from tests.drafters.tiny_vocab import NAMES, WITH_SHARED
from tests.worker.drawn import Rows, continued, wanted
from tests.worker.enumeration import GREEDY, Case, Law, Params, emitted_laws, sampler_law, sampling_info
from tests.worker.test_sampling_exact import assert_same_law, one_rank

__all__ = ["one_rank"]

pytestmark = pytest.mark.usefixtures("one_rank")

PARAMS = {
    "temperature 1": Params(),
    "all filters": Params(1.3, top_k=4, top_p=0.9, min_p=0.1),
    "greedy": GREEDY,
}
NUM_STEPS = 2
PROMPT = [0, 1, 2, 0]


class Steered:
    """The worker's own sampler, with the coins that make it draw a wanted column at each step.

    wanted: [b, steps]. weights: [b] float64, how likely that is so far; 0 where it cannot be drawn.
    """

    def __init__(self, params: list[Params], wanted: torch.Tensor) -> None:
        from sglang_hetero_spec.worker.draft_sampling import DraftSampler

        info = sampling_info(params)
        self._wanted = wanted
        self._drawing = DraftSampler(
            temperatures=info.temperatures,
            top_ks=info.top_ks if info.need_top_k_sampling else None,
            top_ps=info.top_ps if info.need_top_p_sampling else None,
            min_ps=info.min_ps if info.need_min_p_sampling else None,
            max_top_k=info.max_top_k,
            coins=torch.zeros(wanted.shape),
        )
        self.temperatures = info.temperatures
        self.weights = torch.ones(len(wanted), dtype=torch.float64)

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._steer("draw", logits, step)

    def draw_from(self, probs: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._steer("draw_from", probs, step)

    def _steer(self, name: str, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, law = getattr(self._drawing, name)(rows, step)
        whole = law.double()
        if name == "draw_from":
            whole = torch.cat((whole, (1 - whole.sum(-1, keepdim=True)).clamp(min=0)), dim=-1)
        column = self._wanted[:, step : step + 1]
        mass = whole.gather(1, column)
        coins = (whole.cumsum(-1).gather(1, column) - mass / 2) / whole.sum(-1, keepdim=True)
        steered = replace(self._drawing, coins=coins.float().expand(-1, step + 1))
        drawn, law = getattr(steered, name)(rows, step)
        possible = mass[:, 0] > 1e-6
        assert torch.equal(drawn[possible], column[possible, 0])
        self.weights *= torch.where(possible, mass[:, 0], 0.0)
        return drawn, law

    def select(self, numbers: list[int]) -> Sampler:
        raise AssertionError("all requests can be drafted for")


def scripts(num_columns: int) -> torch.Tensor:
    """[num_columns ** NUM_STEPS, NUM_STEPS], every row of columns."""
    return torch.cartesian_prod(*[torch.arange(num_columns)] * NUM_STEPS).view(-1, NUM_STEPS)


def proposals(world: World, params: Params) -> tuple[DraftTree, list[float]]:
    """Every tree that the drafter could propose behind PROMPT, and its probability. All are proposed in one batch, of
    requests with the same text."""
    num_columns = {"tli": len(world.pairing.shared.draft_ids), "slrs": world.num_target + 1, "slem": 1}[world.mode]
    wanted_columns = scripts(num_columns)
    for number in range(len(wanted_columns)):
        world.add(number, list(PROMPT))
    sampler = Steered([params] * len(wanted_columns), wanted_columns)
    tree = world.propose(range(len(wanted_columns)), sampler)
    return tree, sampler.weights.tolist()


def target_rows(world: World, params: Params, any_filter: bool) -> tuple[Rows, Rows]:
    """The target's logits behind tokens that follow PROMPT, and what it samples from there."""
    model = ContextModel(world.num_target, seed=77)

    @cache
    def logits(prefix: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(model.logits((*PROMPT, *prefix))) * 0.7

    @cache
    def law(prefix: tuple[int, ...]) -> torch.Tensor:
        return sampler_law(Case([-1], [0], logits(prefix)[None], params), any_filter)[0]

    return logits, law


def case_of(tree: DraftTree, number: int, logits: Rows, params: Params) -> Case:
    tokens, parents = tree.tokens[number].tolist(), tree.parents[number].tolist()
    paths: list[tuple[int, ...]] = [()]
    for node in range(1, tree.width):
        paths.append((*paths[parents[node]], tokens[node]) if parents[node] >= 0 else ())
    law = tree.law
    one = None
    if law is not None:
        void = None if law.void is None else law.void[number : number + 1]
        one = DraftLaw(law.probs[number : number + 1], law.target_ids, void)
    num_proposed = None if tree.num_proposed is None else tree.num_proposed[number]
    rows = torch.stack([logits(path) for path in paths])
    return Case(parents, tokens, rows, params, drawn=one, num_proposed=num_proposed)


def check(world: World, params: Params, monkeypatch: pytest.MonkeyPatch) -> float:
    """The law of the emitted tokens, continued by the target, is the target's. Returns how likely one draft or more is
    accepted."""
    tree, weights = proposals(world, params)
    possible = [number for number, weight in enumerate(weights) if weight > 0]
    assert sum(weights) == pytest.approx(1.0, abs=1e-4)
    logits, target = target_rows(world, params, True)
    # A request with a filter and one that is not greedy: all batches go the same way.
    beside = [case_of_root(logits, Params()), case_of_root(logits, Params(top_k=3))]
    cases = [case_of(tree, number, logits, params) for number in possible]
    laws = emitted_laws([*cases, *beside], tree.width, monkeypatch)
    found: Law = {}
    total_lost = 1.0 - sum(weights)
    for number, (law, lost, _) in zip(possible, laws, strict=False):
        total_lost += weights[number] * lost
        for tokens, p in law.items():
            found[tokens] = found.get(tokens, 0.0) + weights[number] * p
    length = max(map(len, found))
    assert_same_law(continued(found, target, length), wanted(target, length), abs(total_lost) + 1e-5)
    return sum(p for tokens, p in found.items() if len(tokens) > 1)


def case_of_root(logits: Rows, params: Params) -> Case:
    return Case([-1], [PROMPT[-1]], logits(())[None], params)


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
    logits, target = target_rows(world, params, True)
    beside = [case_of_root(logits, Params()), case_of_root(logits, Params(top_k=3))]
    case = replace(case_of(tree, 0, logits, params), num_proposed=None)
    law, lost, _ = emitted_laws([case, *beside], tree.width, monkeypatch)[0]
    length = max(map(len, law))
    assert_same_law(continued(law, target, length), wanted(target, length), lost + 1e-5)


@pytest.mark.parametrize(("mode", "vocab"), [("tli", "the same"), ("tli", "partial"), ("slrs", "ambiguous")])
def test_drafts_are_accepted_as_often_as_theory_says(mode: str, vocab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of min(p, q'), q' being the drafter's law over target tokens; more than by the rule that knows no law."""
    world = make_world(mode, vocab, num_steps=NUM_STEPS, max_len=96, num_rows=80)
    accepted = check(world, Params(), monkeypatch)
    _, target = target_rows(world, Params(), True)
    p, q = target(()), torch.zeros(world.num_target, dtype=torch.float64)
    shared = world.pairing.shared
    if mode == "slrs":
        q[:] = torch.tensor(defined_psi(world.pairing, world.sequences, world.history(0), 1.0)[0])
    else:
        logits = torch.tensor(world.draft_logits(world.history(0))).double()[shared.draft_ids.tolist()]
        q[shared.draft_to_target[shared.draft_ids].tolist()] = logits.softmax(-1)
    assert accepted == pytest.approx(torch.minimum(p, q).sum().item(), abs=1e-4)
    assert accepted > (p * q).sum().item() + 0.02
