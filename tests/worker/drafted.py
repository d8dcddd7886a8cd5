"""What a drafter could propose behind one prompt, with probabilities, and what verification makes of all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from sglang_hetero_spec.drafters.base import Sampler
from sglang_hetero_spec.drafters.tree import DraftLaw, DraftTree
from tests.drafters.reference import ContextModel
from tests.worker.drawn import Rows, continued, wanted
from tests.worker.enumeration import Case, Law, Params, emitted_laws, sampler_law, sampling_info
from tests.worker.test_sampling_exact import assert_same_law

TARGET_SEED = 77


class Steered:
    """The worker's own sampler, with the coins that make it draw a wanted column at each step.

    wanted: [b, steps]. weights: [b] float64, how likely that is so far; 0 where it cannot be drawn.
    """

    def __init__(self, params: Sequence[Params], wanted: torch.Tensor) -> None:
        from sglang_hetero_spec.worker.draft_sampling import DraftSampler

        info = sampling_info(list(params))
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


def likeliest(params: Params, num_requests: int, num_steps: int) -> Sampler:
    """The sampler of requests that have two drafters."""
    steered = Steered([params] * num_requests, torch.zeros((num_requests, num_steps), dtype=torch.int64))
    return steered._drawing.likeliest(list(range(num_requests)))


def scripts(num_columns: int, num_steps: int) -> torch.Tensor:
    """[num_columns ** num_steps, num_steps], every row of columns."""
    return torch.cartesian_prod(*[torch.arange(num_columns)] * num_steps).view(-1, num_steps)


@dataclass(frozen=True)
class Target:
    """logits behind tokens that follow the prompt, and the law that they are sampled from there."""

    prompt: Sequence[int]
    vocab_size: int
    params: Params
    any_filter: bool = True

    @property
    def logits(self) -> Rows:
        return _logits(tuple(self.prompt), self.vocab_size)

    @property
    def law(self) -> Rows:
        @cache
        def law(prefix: tuple[int, ...]) -> torch.Tensor:
            return sampler_law(Case([-1], [0], self.logits(prefix)[None], self.params), self.any_filter)[0]

        return law

    def root(self, params: Params) -> Case:
        """A request with the same text that nobody drafts for."""
        return Case([-1], [self.prompt[-1]], self.logits(())[None], params)


@cache
def _logits(prompt: tuple[int, ...], vocab_size: int) -> Rows:
    model = ContextModel(vocab_size, TARGET_SEED)
    return cache(lambda prefix: torch.tensor(model.logits((*prompt, *prefix))) * 0.7)


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


@dataclass(frozen=True)
class Proposed:
    """All trees that could be proposed for one request, and how likely each is."""

    tree: DraftTree
    weights: list[float]
    params: Params


def check(
    everything: Sequence[Proposed], prompt: Sequence[int], vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """Of each of these requests, verified in one batch: the law of the emitted tokens, continued by the target, is the
    target's. Returns how likely one draft or more of each is accepted."""
    targets = [Target(prompt, vocab_size, each.params) for each in everything]
    cases = []
    for each, target in zip(everything, targets, strict=True):
        assert sum(each.weights) == pytest.approx(1.0, abs=1e-4)
        cases += [case_of(each.tree, n, target.logits, each.params) for n, w in enumerate(each.weights) if w > 0]
    # A request with a filter and one that is not greedy: all batches go the same way.
    beside = [targets[0].root(Params()), targets[0].root(Params(top_k=3))]
    width = max(each.tree.width for each in everything)
    laws = iter(emitted_laws([*cases, *beside], width, monkeypatch))
    accepted = []
    for each, target in zip(everything, targets, strict=True):
        found: Law = {}
        total_lost = 1.0 - sum(each.weights)
        for weight in filter(None, each.weights):
            law, lost, _ = next(laws)
            total_lost += weight * lost
            for tokens, p in law.items():
                found[tokens] = found.get(tokens, 0.0) + weight * p
        length = max(map(len, found))
        assert_same_law(continued(found, target.law, length), wanted(target.law, length), abs(total_lost) + 1e-5)
        accepted.append(sum(p for tokens, p in found.items() if len(tokens) > 1))
    return accepted


def all_drawn(
    params: Params, num_columns: int, num_steps: int, propose: Callable[[int, Sampler], DraftTree]
) -> Proposed:
    """propose: for so many requests with the same text, in one batch."""
    columns = scripts(num_columns, num_steps)
    sampler = Steered([params] * len(columns), columns)
    tree = propose(len(columns), sampler)
    return Proposed(tree, sampler.weights.tolist(), params)
