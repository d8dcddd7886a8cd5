"""Filters against SGLang's own sampler; tree sampling by exact enumeration over its coins."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_hetero_spec.cpu import sampling, seeded
from tests.cpu.reference import links, murmur3, random_parents


def random_rows(seed, rows, vocab, ties=False):
    torch.manual_seed(seed)
    logits = torch.randn(rows, vocab) * 2
    if ties:
        logits = logits.round()
    return logits.softmax(-1)


def upstream(probs, top_ks, top_ps, min_ps, max_top_k=None):
    """SGLang's sampler, made to hand out the distribution it draws from."""
    torch_sampler = pytest.importorskip("sglang.srt.layers.sampler").top_k_top_p_min_p_sampling_from_probs_torch
    drawn = {}

    def spy(weights, num_samples):
        drawn["weights"] = weights.clone()
        return torch.zeros(weights.shape[0], 1, dtype=torch.int64)

    real, torch.multinomial = torch.multinomial, spy
    try:
        torch_sampler(probs.clone(), top_ks, top_ps, min_ps, True, None, None, max_top_k=max_top_k)
    finally:
        torch.multinomial = real
    weights = drawn["weights"]
    order = (
        torch.topk(probs, weights.shape[1], sorted=True)
        if weights.shape[1] < probs.shape[1]
        else probs.sort(dim=-1, descending=True)
    )
    full = torch.zeros_like(probs).scatter_(-1, order.indices, weights)
    return full / full.sum(-1, keepdim=True)


def test_filters_equal_sglangs_sampler():
    """In a process of its own: importing SGLang needs the CPU engine, which other tests must not see."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "tests.cpu.test_sampling"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "compared 60 batches" in run.stdout


def compare_with_upstream():
    for seed in range(60):
        rng = random.Random(seed)
        vocab = rng.choice([3, 17, 300])
        probs = random_rows(seed, 5, vocab, ties=seed % 3 == 0)
        top_ks = torch.tensor([rng.choice([1, 2, 5, vocab, 1 << 30]) for _ in range(5)], dtype=torch.int32)
        top_ps = torch.tensor([rng.choice([1.0, 0.9, 0.5, 0.01]) for _ in range(5)])
        min_ps = torch.tensor([rng.choice([0.0, 0.1, 0.5, 1.0]) for _ in range(5)])
        bound = int(top_ks.max()) if seed % 2 and int(top_ks.max()) < vocab else None
        want = upstream(probs, top_ks, top_ps, min_ps, bound)
        got = sampling.filter_probs(probs, top_ks, top_ps, min_ps, bound)
        assert torch.equal(want > 0, got > 0), seed
        torch.testing.assert_close(got, want)
    print("compared 60 batches")


def test_single_filters():
    probs = torch.tensor([[0.5, 0.1, 0.3, 0.1]])
    top_k = sampling.top_k_renorm_probs(probs, torch.tensor([2]))
    torch.testing.assert_close(top_k, torch.tensor([[0.625, 0.0, 0.375, 0.0]]))
    torch.testing.assert_close(sampling.top_p_renorm_probs(probs, torch.tensor([0.4])), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(sampling.min_p_renorm_probs(probs, torch.tensor([0.5])), top_k)


def test_top_p_is_measured_before_top_k_cuts():
    probs = torch.tensor([[0.4, 0.3, 0.3]])
    joint = sampling.filter_probs(probs, torch.tensor([2]), torch.tensor([0.5]), None)
    assert int((joint > 0).sum()) == 2
    chained = sampling.top_p_renorm_probs(sampling.top_k_renorm_probs(probs, torch.tensor([2])), torch.tensor([0.5]))
    assert int((chained > 0).sum()) == 1


def test_filtering_changes_no_input():
    probs = random_rows(0, 3, 9)
    before = probs.clone()
    sampling.filter_probs(probs, torch.tensor([2, 3, 1]), torch.tensor([0.5] * 3), torch.tensor([0.1] * 3))
    assert torch.equal(probs, before)


def sample(parents, tokens, probs, coins, final, places=None, batch=1):
    """Run the op on copies of one tree; coins: [batch, D]. Returns (emitted tokens, accepted nodes) per row."""
    width = len(parents)
    child, sibling = (torch.tensor([part] * batch) for part in links(parents))
    places = places or width
    predicts = torch.full((batch * width,), -1, dtype=torch.int32)
    accept = torch.full((batch, places), -1, dtype=torch.int32)
    counts = torch.zeros(batch, dtype=torch.int32)
    target = probs.float().expand(batch, *probs.shape).contiguous()
    sampling.tree_speculative_sampling_target_only(
        predicts=predicts,
        accept_index=accept,
        accept_token_num=counts,
        candidates=torch.tensor([tokens] * batch),
        retrive_index=torch.arange(batch * width).view(batch, width),
        retrive_next_token=child,
        retrive_next_sibling=sibling,
        uniform_samples=coins.float(),
        uniform_samples_for_final_sampling=final.float(),
        target_probs=target,
        draft_probs=torch.zeros_like(target),
    )
    result = []
    for row in range(batch):
        path = accept[row, : int(counts[row]) + 1].tolist()
        assert all(node == -1 for node in accept[row, int(counts[row]) + 1 :].tolist())
        result.append(([int(predicts[node]) for node in path], [node - row * width for node in path]))
    return result


# Probabilities are multiples of 1/4, so that 4 coins in the middle of their cells stand for all coins exactly.
CELLS = 4
# The final coin is spread over what rejected children left: 1 to 4 quarters, all of which divide this grid.
GRID = 12


def quarters(rng, vocab):
    cuts = sorted(rng.randint(0, CELLS) for _ in range(vocab - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, CELLS], strict=True)]


def distinct_tokens(rng, parents, vocab):
    tokens = [0] * len(parents)
    for node in range(len(parents)):
        children = [c for c in range(len(parents)) if parents[c] == node]
        for child, token in zip(children, rng.sample(range(vocab), len(children)), strict=True):
            tokens[child] = token
    return tokens


@pytest.mark.parametrize("seed", range(16))
def test_emitted_tokens_have_the_targets_distribution(seed):
    """Every coin is enumerated. P(sequence) must be the product of the target's probabilities along it.

    One coin belongs to each node, so enumerating all of them and the final coin is exact.
    """
    rng = random.Random(seed)
    vocab, width = 4, rng.choice([1, 2, 3, 4, 5])
    parents = random_parents(rng, width)
    while any(parents.count(n) > vocab for n in range(width)):
        parents = random_parents(rng, width)
    tokens = distinct_tokens(rng, parents, vocab)
    table = [quarters(rng, vocab) for _ in range(width)]
    probs = torch.tensor(table, dtype=torch.float64) / CELLS

    node_coins = torch.tensor(list(itertools.product(range(CELLS), repeat=width)), dtype=torch.float64)
    coins = ((node_coins + 0.5) / CELLS).repeat(GRID, 1)
    finals = ((torch.arange(GRID) + 0.5) / GRID).repeat_interleave(node_coins.shape[0])
    seen: dict[tuple[int, ...], Fraction] = {}
    for emitted, _ in sample(parents, tokens, probs, coins, finals, batch=len(finals)):
        seen[tuple(emitted)] = seen.get(tuple(emitted), Fraction(0)) + Fraction(1, len(finals))

    assert sum(seen.values()) == 1
    want = expected(parents, tokens, table, node=0)
    assert {k: v for k, v in seen.items() if v} == {k: v for k, v in want.items() if v}


def expected(parents, tokens, table, node):
    """P(emitted sequence): a token that is a drafted child goes on into that child, any other ends the step."""
    result = {}
    for token, mass in enumerate(table[node]):
        child = next((c for c in range(len(parents)) if parents[c] == node and tokens[c] == token), None)
        here = Fraction(mass, CELLS)
        if child is None:
            result[(token,)] = here
        else:
            for rest, p in expected(parents, tokens, table, child).items():
                result[(token, *rest)] = here * p
    return result


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_batched_equals_one_by_one(seed):
    rng = random.Random(seed)
    width, vocab, batch = rng.randint(1, 7), 9, rng.randint(2, 5)
    parents = random_parents(rng, width)
    tokens = distinct_tokens(rng, parents, vocab)
    probs = random_rows(seed, width, vocab)
    coins, final = torch.rand(batch, width), torch.rand(batch)
    places = rng.randint(1, width + 1)
    together = sample(parents, tokens, probs, coins, final, places, batch)
    for row in range(batch):
        alone = sample(parents, tokens, probs, coins[row : row + 1], final[row : row + 1], places)
        assert together[row] == alone[0]


def test_tokens_without_mass_are_never_emitted():
    probs = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for coin in (0.0, 0.5, 1 - 2**-24):
        coins = torch.full((1, 2), coin)
        (emitted, _), *_ = sample([-1, 0], [0, 0], probs, coins, coins[:, 0])
        assert emitted == [1]
        (emitted, _), *_ = sample([-1, 0], [0, 1], probs, coins, coins[:, 0])
        assert emitted == [1, 3]


def test_a_coin_beyond_rounding_still_gives_a_possible_token():
    # All mass is on the drafted children, but it sums to a little less than the coin.
    probs = torch.tensor([[0.3, 0.7 - 1e-5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    coins = torch.full((1, 3), 1 - 2**-24)
    (emitted, _), *_ = sample([-1, 0, 0], [0, 0, 1], probs, coins, coins[:, 0])
    assert emitted[0] == 1


def test_depth_limit_ends_the_walk_in_a_plain_draw():
    probs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    (emitted, path), *_ = sample([-1, 0, 1], [0, 1, 0], probs, torch.zeros(1, 3), torch.zeros(1), places=2)
    assert (emitted, path) == ([1, 0], [0, 1])


def test_seeded_hash():
    rng = random.Random(0)
    seeds = [rng.randrange(2**63) for _ in range(3)] + [2**64 - 1]
    positions, columns = [0, 7, 2**31, 5], [0, 1, 2, 151935]
    got = seeded.murmur_hash32(torch.tensor(seeds, dtype=torch.uint64), torch.tensor(positions), torch.tensor(columns))
    want = [[murmur3([s & 0xFFFFFFFF, s >> 32, p, c]) for c in columns] for s, p in zip(seeds, positions, strict=True)]
    assert got.dtype == torch.uint32 and got.long().tolist() == want


if __name__ == "__main__":
    from sglang_hetero_spec import cpu

    cpu.enable()
    compare_with_upstream()
