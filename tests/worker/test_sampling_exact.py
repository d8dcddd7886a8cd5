"""Verification is exact: the law of the emitted tokens, by full enumeration, is that of the target's own sampler."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.drafters.tree import DraftTree
from tests.worker.enumeration import (
    GREEDY,
    TOP_K_ALL,
    Case,
    Law,
    Params,
    emitted_laws,
    random_case,
    sampler_law,
    sampling_info,
    wanted_law,
)
from tests.worker.proposals import proposal

pytestmark = pytest.mark.usefixtures("one_rank")

VOCAB_SIZE = 5
TREES = {
    "root alone": [-1],
    "one draft": [-1, 0],
    "chain": [-1, 0, 1, 2],
    "siblings": [-1, 0, 0, 0],
    "all tokens drafted": [-1, 0, 0, 0, 0, 0],
    "branching twice": [-1, 0, 0, 1, 1, 2],
    "deep and wide": [-1, 0, 0, 1, 3, 3],
    "children far apart": [-1, 0, 1, 0, 2, 1],
}
PARAMS = {
    "temperature 1": Params(),
    "temperature 0.7": Params(temperature=0.7),
    "temperature 2": Params(temperature=2.0),
    "greedy": GREEDY,
    "top-k": Params(top_k=2),
    "top-p": Params(top_p=0.6),
    "min-p": Params(min_p=0.2),
    "top-k and top-p": Params(0.7, top_k=3, top_p=0.7),
    "top-k and min-p": Params(top_k=4, min_p=0.3),
    "all filters": Params(1.3, top_k=4, top_p=0.9, min_p=0.15),
}


@pytest.fixture
def one_rank(sglang: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import sampling

    set_backend(monkeypatch, "pytorch")
    monkeypatch.setattr(sampling, "get_parallel", lambda: SimpleNamespace(tp_group=SimpleNamespace(world_size=1)))


def set_backend(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    from sglang_hetero_spec.worker import sampling

    kernel = SimpleNamespace(sampling_backend=backend)
    monkeypatch.setattr(sampling, "get_exec", lambda: SimpleNamespace(kernel=kernel))


def assert_same_law(got: Law, want: Law, lost: float) -> None:
    assert set(got) <= set(want), "only what the target could have said"
    for tokens, probability in want.items():
        assert got.get(tokens, 0.0) == pytest.approx(probability, abs=lost + 2e-6), tokens


def check(cases: list[Case], width: int, monkeypatch: pytest.MonkeyPatch) -> int:
    any_filter = any(case.params != Params(case.params.temperature) for case in cases)
    num_cells = 0
    for case, (law, lost, count) in zip(cases, emitted_laws(cases, width, monkeypatch), strict=True):
        assert_same_law(law, wanted_law(case, sampler_law(case, any_filter)), lost)
        num_cells += count
    return num_cells


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("parents", TREES.values(), ids=TREES.keys())
def test_the_emitted_tokens_are_the_targets(
    parents: list[int], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trees of each form with other logits and drafts; all requests of a greedy batch would go another way."""
    rng = random.Random(f"{parents}{params}")
    cases = [random_case(rng, parents, VOCAB_SIZE, params) for _ in range(2)]
    if params == GREEDY:
        cases.append(random_case(rng, parents, VOCAB_SIZE, Params()))
    assert check(cases, len(parents), monkeypatch) >= len(cases)


@pytest.mark.parametrize("seed", range(6))
def test_batches_of_different_drafters_and_parameters(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of all forms merged and padded to one width, each request with parameters of its own."""
    rng = random.Random(seed)
    forms = rng.sample(list(TREES.values()), 5)
    cases = [random_case(rng, parents, VOCAB_SIZE, rng.choice(list(PARAMS.values()))) for parents in forms]
    cases.append(random_case(rng, rng.choice(forms), VOCAB_SIZE, Params()))
    assert check(cases, 8, monkeypatch) > 100


def test_a_logit_bias_counts_in_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    bias = torch.tensor([2.0, 0.0, -3.0, 0.0, 0.5])
    case = random_case(random.Random(1), TREES["branching twice"], VOCAB_SIZE, Params(top_k=4))
    ((law, lost, _),) = emitted_laws([case], 6, monkeypatch, bias)
    biased = replace(case, logits=case.logits + bias)
    assert_same_law(law, wanted_law(biased, sampler_law(biased, True)), lost)


def test_why_siblings_must_be_distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    """One coin walks along the siblings, so a token that is there twice is accepted with twice its probability."""
    logits = torch.tensor([[0.3, 0.25, 0.45]]).log().repeat(3, 1)
    twice = Case([-1, 0, 0], [0, 1, 1], logits)
    ((law, _, _),) = emitted_laws([twice], 3, monkeypatch)
    first = [sum(p for tokens, p in law.items() if tokens[0] == token) for token in range(3)]
    assert first[1] == pytest.approx(0.5, abs=1e-4)
    once = Case([-1, 0, 0], [0, 1, 2], logits)
    ((law, _, _),) = emitted_laws([once], 3, monkeypatch)
    assert sum(p for tokens, p in law.items() if tokens[0] == 1) == pytest.approx(0.25, abs=1e-4)


def plain_filter(probs: list[float], params: Params, joint: bool) -> list[float]:
    """joint: top-p measures the mass before a token among all tokens; otherwise among those that top-k left."""
    order = sorted(range(len(probs)), key=lambda token: -probs[token])
    top = order[: params.top_k]
    scale = 1.0 if joint else sum(probs[token] for token in top)
    kept = [t for place, t in enumerate(top) if sum(probs[u] for u in top[:place]) / scale <= params.top_p]
    kept = [token for token in kept if probs[token] >= params.min_p * probs[order[0]]]
    total = sum(probs[token] for token in kept)
    return [probs[token] / total if token in kept else 0.0 for token in range(len(probs))]


@pytest.mark.parametrize("has_min_p", [False, True])
@pytest.mark.parametrize("backend", ["pytorch", "flashinfer"])
def test_filters_are_those_of_the_targets_sampler(
    backend: str, has_min_p: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlashInfer cuts by top-k, then top-p, then min-p where a request of the batch has min-p; elsewhere top-k and
    top-p are measured together."""
    from sglang_hetero_spec.worker.sampling import target_probs

    set_backend(monkeypatch, backend)
    rng = random.Random(0)
    differs = 0
    for seed in range(40):
        params = [
            Params(
                rng.choice([0.5, 1.0]),
                rng.choice([2, 3, TOP_K_ALL]),
                rng.choice([0.5, 0.8, 1.0]),
                rng.choice([0.1, 0.4]) if has_min_p else 0.0,
            )
            for _ in range(3)
        ]
        logits = torch.randn(3 * 2, 7, generator=torch.Generator().manual_seed(seed))
        got = target_probs(logits, sampling_info(params), 2)
        for row in range(6):
            p = params[row // 2]
            probs = (logits[row] / p.temperature).softmax(-1).tolist()
            joint = backend == "pytorch" or not has_min_p
            assert got[row].tolist() == pytest.approx(plain_filter(probs, p, joint), abs=1e-6)
            differs += plain_filter(probs, p, True) != plain_filter(probs, p, False)
    assert differs > 10


@pytest.mark.parametrize(
    ("params", "device", "is_exact"),
    [
        (GREEDY, "cpu", True),
        (GREEDY, "cuda", True),
        (Params(), "cpu", False),
        (Params(0.7, top_k=5), "cuda", True),
        (Params(0.7, top_p=0.8), "cuda", True),
        (Params(0.7, top_k=5, top_p=0.8), "cuda", False),
        (Params(min_p=0.1), "cuda", False),
    ],
)
def test_sglangs_verification_is_used_only_where_it_is_exact(params: Params, device: str, is_exact: bool) -> None:
    from sglang_hetero_spec.worker.sampling import _upstream_is_exact

    info = sampling_info([params])
    assert _upstream_is_exact(info, device) == is_exact
    info.has_custom_logit_processor = True
    assert not _upstream_is_exact(info, device)


def test_other_algorithms_are_left_alone() -> None:
    from sglang_hetero_spec.worker.sampling import sample_exactly

    batch = SimpleNamespace(forward_mode=SimpleNamespace(is_idle=lambda: False), sampling_info=None, device="cpu")
    assert sample_exactly(lambda *args: args, "an EAGLE input", batch, "logits") == (
        "an EAGLE input",
        batch,
        "logits",
        None,
    )


def test_seeded_coins_depend_on_seed_and_position_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With sampling_seed a request gets the same tokens in whatever batch it is: a repeated run says the same."""
    from sglang_hetero_spec.worker import sampling
    from sglang_hetero_spec.worker.merge import merge_trees
    from sglang_hetero_spec.worker.verify_input import build_verify_input

    rng = random.Random(4)
    cases = [random_case(rng, TREES["branching twice"], VOCAB_SIZE, Params(1.3)) for _ in range(12)]
    tree = DraftTree(torch.tensor([c.tokens for c in cases]), torch.tensor([c.parents for c in cases]), 2, 1)
    logits, seeds = torch.stack([c.logits for c in cases]), torch.arange(12) * 977

    def say(order: list[int], seed_shift: int = 0) -> dict[int, list[int]]:
        info = sampling_info([cases[number].params for number in order])
        info.sampling_seed = seeds[order] + seed_shift
        batch = SimpleNamespace(
            seq_lens=torch.tensor(order) + 3,
            seq_lens_sum=sum(order) + 3 * len(order),
            device="cpu",
            forward_mode=SimpleNamespace(is_idle=lambda: False),
            sampling_info=info,
        )
        part = DraftTree(tree.tokens[order], tree.parents[order], tree.depth, tree.num_fed)
        merged = merge_trees(part.tokens[:, 0], [proposal(0, range(len(order)), part)], 6)
        backend = SimpleNamespace(verify_mask=None, max_context_len=64)
        verify_input = build_verify_input(merged, batch, SimpleNamespace(attn_backend=backend))
        output = SimpleNamespace(next_token_logits=logits[order].flatten(0, 1).clone())
        predict, lens, index = sampling.sample_exactly(None, verify_input, batch, output)
        return {
            number: predict[path[:length]].tolist()
            for number, path, length in zip(order, index.tolist(), lens.tolist(), strict=True)
        }

    together = say(list(range(12)))
    assert say(list(range(12))) == together
    assert say([7, 2, 9]) == {number: together[number] for number in (7, 2, 9)}
    assert say(list(range(12)), seed_shift=1) != together
