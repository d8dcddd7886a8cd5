"""The worker's own host time in a verify step, and its parts: merging trees, the verify input with its mask.

Neither a draft model nor a target runs. At most 5 % of a step may be ours (`hetero-spec bench` says what it was).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from benchmarks.stub_worker import VOCAB, decode_steps
from sglang_hetero_spec import cpu
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree, chain, lay_out
from tests.support.threads import one_thread

TREE_PARENTS = [NO_NODE, 0, 0, 0, 1, 1, 2, 4, 4, 5, 7, 8]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    cpu.enable()
    with one_thread():
        yield


@pytest.mark.parametrize("num_drafters", [1, 4, 8])
@pytest.mark.parametrize("size", [1, 8, 32])
def test_host_time_of_a_step(benchmark, size: int, num_drafters: int) -> None:  # type: ignore[no-untyped-def]
    """HeteroWorker._decode for requests that so many drafters share; stubs take 10 us a drafter and 30 us a forward."""
    if num_drafters > size:
        pytest.skip("fewer requests than drafters")
    benchmark.group = f"worker, host time of a step, {size} request{'s' if size > 1 else ''}"
    step = decode_steps(num_drafters, size)
    with torch.inference_mode():
        step()
        benchmark(step)


def _proposals(num_drafters: int, size: int, branching: bool) -> list:
    """Chains of 3, 4, 5 and 3, ... drafts, or trees of twelve nodes, of requests that take turns."""
    from sglang_hetero_spec.worker.merge import Proposal

    proposals = []
    for drafter in range(num_drafters):
        places = list(range(drafter, size, num_drafters))
        count, width = len(places), 4 + drafter % 3
        if branching:
            tokens = torch.randint(0, VOCAB, (count, len(TREE_PARENTS)))
            tree = DraftTree(tokens, torch.tensor([TREE_PARENTS] * count), depth=4, num_fed=1)
        else:
            tree = chain(torch.randint(0, VOCAB, (count, width)), num_fed=width - 1)
        proposals.append(Proposal(places, torch.tensor(places), [drafter] * count, tree))
    return proposals


@pytest.mark.parametrize("shape", ["chains", "trees"])
@pytest.mark.parametrize("num_drafters", [1, 4, 8])
def test_merge(benchmark, num_drafters: int, shape: str) -> None:  # type: ignore[no-untyped-def]
    """`merge_trees`: the proposals of so many drafters for 16 requests into one padded batch of trees."""
    from sglang_hetero_spec.worker.merge import merge_trees

    proposals = _proposals(num_drafters, 16, shape == "trees")
    width = max(proposal.tree.width for proposal in proposals)
    roots = torch.randint(0, VOCAB, (16,))
    benchmark.group = f"merge {shape} of 16 requests"
    with torch.inference_mode():
        benchmark(merge_trees, roots, proposals, width)


@pytest.mark.parametrize("mask", ["QLEN_ONLY", "FULL_MASK"])
@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("shape", ["chains", "trees"])
def test_verify_input(benchmark, shape: str, size: int, mask: str) -> None:  # type: ignore[no-untyped-def]
    """`build_verify_input`: positions, links and the mask of a merged batch of 4 drafters; 1,000 committed tokens."""
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

    from sglang_hetero_spec.worker.merge import merge_trees
    from sglang_hetero_spec.worker.verify_input import build_verify_input

    proposals = _proposals(min(4, size), size, shape == "trees")
    width = max(proposal.tree.width for proposal in proposals)
    merged = merge_trees(torch.randint(0, VOCAB, (size,)), proposals, width)
    lens = torch.full((size,), 1000)
    batch = SimpleNamespace(seq_lens=lens, seq_lens_sum=1000 * size)
    wanted = SimpleNamespace(mode=TreeMaskMode[mask], buffer=None, fits=lambda _: False)
    runner = SimpleNamespace(attn_backend=SimpleNamespace(verify_mask=wanted, max_context_len=2048))
    benchmark.group = f"verify input, {mask}, {size} request{'s' if size > 1 else ''}"
    with torch.inference_mode():
        benchmark(build_verify_input, merged, batch, runner)


@pytest.mark.parametrize("size", [1, 16])
def test_layout(benchmark, size: int) -> None:  # type: ignore[no-untyped-def]
    """`lay_out`: who sees whom in trees of twelve nodes, the part of the verify input that grows with the tree."""
    benchmark.group = "layout of trees"
    with torch.inference_mode():
        benchmark(lay_out, torch.tensor([TREE_PARENTS] * size))
