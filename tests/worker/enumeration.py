"""One verify step of the worker with every coin that could fall, instead of many coins at random.

A coin decides by where it lies among a few thresholds. The cells between them are enumerated, all coins together, each
combination with its exact probability; that the outcome is the same all over a cell is checked, not assumed.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch

from sglang_hetero_spec.drafters.tree import DraftLaw, DraftTree
from sglang_hetero_spec.worker.merge import merge_trees
from tests.drafters import reference
from tests.worker.proposals import proposal

TOP_K_ALL = 1 << 30
# A cell must hold a few float32 coins beside its edges; what smaller ones weigh is added to the tolerance.
NARROWEST_CELL = 1e-5

Law = dict[tuple[int, ...], float]


@dataclass(frozen=True)
class Params:
    """Sampling parameters of one request, as SGLang normalises them: greedy is top_k 1 at temperature 1."""

    temperature: float = 1.0
    top_k: int = TOP_K_ALL
    top_p: float = 1.0
    min_p: float = 0.0


GREEDY = Params(top_k=1)


@dataclass(frozen=True)
class Case:
    """One request of a verify step: its tree, the target's logits after each node, float32 [n, V].

    drawn: the law that the drafts of a chain were drawn from, of a batch of one; None for a tree that was chosen.
    num_proposed: as in DraftTree.
    """

    parents: list[int]
    tokens: list[int]
    logits: torch.Tensor
    params: Params = field(default_factory=Params)
    drawn: DraftLaw | None = None
    num_proposed: int | None = None

    def child_with(self, node: int, token: int) -> int | None:
        children = (c for c in reference.children_of(self.parents, node) if self.tokens[c] == token)
        return next(children, None)


def random_case(rng: random.Random, parents: list[int], vocab_size: int, params: Params) -> Case:
    """Siblings are distinct. Drafts are likely tokens, unlikely ones, and ones that the filters cut off."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    logits = torch.randn(len(parents), vocab_size, generator=generator) * 1.5
    tokens = [rng.randrange(vocab_size)] * len(parents)
    for node in range(len(parents)):
        children = reference.children_of(parents, node)
        for child, token in zip(children, rng.sample(range(vocab_size), len(children)), strict=True):
            tokens[child] = token
    return Case(parents, tokens, logits, params)


def sampler_law(case: Case, any_filter: bool) -> torch.Tensor:
    """What SGLang's own sampler (PyTorch backend) draws from after each node, float64 [n, V]. any_filter: whether a
    request of the batch has a filter, which sends all of them through the filtering sampler."""
    from sglang.srt.layers.sampler import top_k_top_p_min_p_sampling_from_probs_torch

    n, p = len(case.parents), case.params
    probs = (case.logits / p.temperature).softmax(-1)
    if not any_filter:
        return probs.double()
    _, weights, tokens, _ = top_k_top_p_min_p_sampling_from_probs_torch(
        probs.clone(),
        torch.full((n,), p.top_k),
        torch.full((n,), p.top_p),
        torch.full((n,), p.min_p),
        p.min_p > 0,
        None,
        None,
        return_filtered_probs=True,
    )
    law = torch.zeros(n, probs.shape[1], dtype=torch.float64).scatter_(1, tokens.long(), weights.double())
    return law / law.sum(-1, keepdim=True)


def wanted_law(case: Case, law: torch.Tensor, node: int = 0) -> Law:
    """P(tokens emitted by the step) if each is the target's own: a drafted token goes on, any other ends the step."""
    result: Law = {}
    for token, mass in enumerate(law[node].tolist()):
        child = case.child_with(node, token)
        if child is None:
            result[(token,)] = mass
        else:
            result |= {(token, *rest): mass * p for rest, p in wanted_law(case, law, child).items()}
    return {tokens: p for tokens, p in result.items() if p > 0}


@dataclass(frozen=True)
class Cells:
    """All combinations of cells of one request. lows, highs: [cells, n + 1] float64, the coin of each node and the
    final one; weights: [cells]; lost: probability of what was left out as too narrow."""

    lows: torch.Tensor
    highs: torch.Tensor
    weights: torch.Tensor
    lost: float

    def points(self, share: torch.Tensor | float) -> torch.Tensor:
        return self.lows + (self.highs - self.lows) * share


def coin_cells(case: Case, law: torch.Tensor) -> Cells:
    axes = []
    final_thresholds: list[float] = []
    for node in range(len(case.parents)):
        thresholds, left = (_of_tree if case.drawn is None else _of_chain)(case, law, node)
        axes.append(_cells(thresholds))
        if left.sum() > (1e-12 if case.drawn is None else 1e-6):
            final_thresholds += (left.cumsum(0) / left.sum()).tolist()
    axes.append(_cells(final_thresholds))
    chosen = list(itertools.product(*axes))
    bounds = torch.tensor(chosen, dtype=torch.float64)
    weights = (bounds[..., 1] - bounds[..., 0]).prod(dim=1)
    return Cells(bounds[..., 0], bounds[..., 1], weights, lost=1.0 - weights.sum().item())


def _of_tree(case: Case, law: torch.Tensor, node: int) -> tuple[list[float], torch.Tensor]:
    """Where the node's coin decides something, and what is drawn from if no child is taken."""
    drafted = [case.tokens[child] for child in reference.children_of(case.parents, node)]
    left = law[node].clone()
    left[drafted] = 0.0
    return list(itertools.accumulate(law[node, token].item() for token in drafted)), left


def _of_chain(case: Case, law: torch.Tensor, node: int) -> tuple[list[float], torch.Tensor]:
    """The same of a draft that was drawn from a law."""
    num_drafts = len(case.parents) - 1 if case.num_proposed is None else case.num_proposed
    if node >= num_drafts:
        return [], law[node]
    q = case.drawn.over_target(law.shape[1])[0, node].double()
    token = case.tokens[node + 1]
    is_void = case.drawn.void is not None and bool(case.drawn.void[0, node])
    threshold = 0.0 if is_void or not q[token] else (law[node, token] / q[token]).item()
    return [threshold], (law[node] - q).clamp(min=0)


def _cells(thresholds: list[float]) -> list[tuple[float, float]]:
    edges = sorted({0.0, 1.0, *(t for t in thresholds if 0.0 < t < 1.0)})
    return [(a, b) for a, b in itertools.pairwise(edges) if b - a > NARROWEST_CELL]


def emitted_laws(
    cases: list[Case], width: int, monkeypatch, bias: torch.Tensor | None = None
) -> list[tuple[Law, float, int]]:
    """For each case, all verified in one batch: P(tokens emitted), what was lost, and the number of cells."""
    any_filter = any(case.params != Params(temperature=case.params.temperature) for case in cases)
    biased = [case if bias is None else replace(case, logits=case.logits + bias) for case in cases]
    cells = [coin_cells(case, sampler_law(b, any_filter)) for case, b in zip(cases, biased, strict=True)]
    generator = torch.Generator().manual_seed(0)
    outcomes = []
    for share in (0.5, 0.01, 0.99, None):
        shares = [
            torch.rand(c.lows.shape, generator=generator, dtype=torch.float64) if share is None else share
            for c in cells
        ]
        coins = [c.points(s) for c, s in zip(cells, shares, strict=True)]
        outcomes.append(_verify(cases, coins, width, monkeypatch, bias))
    assert all(other == outcomes[0] for other in outcomes[1:]), "the outcome changes within a cell"
    result = []
    for emitted, c in zip(outcomes[0], cells, strict=True):
        law: Law = {}
        for tokens, weight in zip(emitted, c.weights.tolist(), strict=True):
            law[tokens] = law.get(tokens, 0.0) + weight
        result.append((law, c.lost, len(emitted)))
    return result


def _verify(
    cases: list[Case], coins: list[torch.Tensor], width: int, monkeypatch, bias: torch.Tensor | None
) -> list[list]:
    """The worker's own way from proposals to tokens; each row of coins is a request of one batch."""
    from sglang.srt.speculative import eagle_utils

    from sglang_hetero_spec.worker import sampling
    from sglang_hetero_spec.worker.verify_input import build_verify_input

    counts = [rows.shape[0] for rows in coins]
    total, firsts = sum(counts), list(itertools.accumulate([0, *counts[:-1]]))
    vocab_size = cases[0].logits.shape[1]
    roots = torch.tensor([case.tokens[0] for case in cases]).repeat_interleave(torch.tensor(counts))
    node_coins, final_coins = torch.full((total, width), 0.5), torch.zeros(total)
    logits = torch.full((total, width, vocab_size), 50.0)  # padding: must not be looked at
    proposals = []
    for number, (case, rows, first) in enumerate(zip(cases, coins, firsts, strict=True)):
        n, members = len(case.parents), torch.arange(first, first + len(rows))
        node_coins[members, :n], final_coins[members] = rows[:, :n].float(), rows[:, n].float()
        logits[members, :n] = case.logits
        if n > 1:
            tree = DraftTree(
                torch.tensor(case.tokens).expand(len(rows), n),
                torch.tensor(case.parents).expand(len(rows), n),
                depth=max(len(reference.path_to(case.parents, node)) for node in range(n)) - 1,
                num_fed=1,
                law=None if case.drawn is None else _repeated(case.drawn, len(rows)),
                num_proposed=None if case.num_proposed is None else (case.num_proposed,) * len(rows),
            )
            proposals.append(proposal(number, members.tolist(), tree))
    params = [case.params for case, count in zip(cases, counts, strict=True) for _ in range(count)]
    batch = SimpleNamespace(
        seq_lens=torch.full((total,), 5),
        seq_lens_sum=5 * total,
        device="cpu",
        forward_mode=SimpleNamespace(is_idle=lambda: False),
        sampling_info=sampling_info(params, bias),
    )
    backend = SimpleNamespace(verify_mask=None, max_context_len=64)
    verify_input = build_verify_input(
        merge_trees(roots, proposals, width, vocab_size), batch, SimpleNamespace(attn_backend=backend)
    )
    monkeypatch.setattr(eagle_utils, "_verify_coins", lambda **_: (node_coins, final_coins))
    output = SimpleNamespace(next_token_logits=logits.view(total * width, vocab_size))
    predict, accept_lens, accept_index = sampling.sample_exactly(_never, verify_input, batch, output)
    emitted = []
    for path, length in zip(accept_index.tolist(), accept_lens.tolist(), strict=True):
        assert path[length:] == [-1] * (len(path) - length)
        emitted.append(tuple(predict[path[:length]].tolist()))
    return [emitted[first : first + count] for first, count in zip(firsts, counts, strict=True)]


def _repeated(law: DraftLaw, count: int) -> DraftLaw:
    void = None if law.void is None else law.void.expand(count, -1)
    return replace(law, probs=law.probs.expand(count, -1, -1), void=void)


def sampling_info(params: list[Params], bias: torch.Tensor | None = None) -> SimpleNamespace:
    top_ks = [p.top_k for p in params]
    return SimpleNamespace(
        temperatures=torch.tensor([[p.temperature] for p in params]),
        top_ks=torch.tensor(top_ks, dtype=torch.int32),
        top_ps=torch.tensor([p.top_p for p in params]),
        min_ps=torch.tensor([p.min_p for p in params]),
        need_top_k_sampling=any(k != TOP_K_ALL for k in top_ks),
        need_top_p_sampling=any(p.top_p != 1.0 for p in params),
        need_min_p_sampling=any(p.min_p > 0 for p in params),
        max_top_k=None if TOP_K_ALL in top_ks else max(top_ks),
        is_all_greedy=all(k <= 1 for k in top_ks),
        has_custom_logit_processor=False,
        acc_additive_penalties=None,
        acc_scaling_penalties=None,
        logit_bias=None if bias is None else bias.expand(len(params), -1),
        sampling_seed=None,
    )


def _never(*_args: object, **_kwargs: object) -> None:
    raise AssertionError("SGLang's own verification is greedy on CPU")
