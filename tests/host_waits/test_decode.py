"""HeteroWorker._decode waits for nothing once every drafter knows its requests, and launches no more than it must.

SGLang's verify is a stub (benchmarks.stub_worker), drafters propose what they have; what is left is ours.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftLaw, DraftTree, chain
from tests.host_waits.fake_device import DEVICE, Seen, StandInKernel, held, on_device, watched_device

pytestmark = pytest.mark.usefixtures("sglang")
SIZE = 32
# What the stubs of the step launch, not we.
STUBS = ("stub_worker", "test_decode")


class Drawing(Drafter):
    """A chain of drafts drawn as the batch asks for it."""

    def propose(self, batch: DraftBatch) -> DraftTree:
        steps, shape = self.spec.num_steps, (len(batch.rows), 64)
        logits = torch.zeros(shape, device=batch.rows.device)
        drawn = [batch.sampler.draw(logits, step) for step in range(steps)]
        tokens = torch.stack([batch.root_tokens, *(draft for draft, _ in drawn)], dim=1)
        return chain(tokens, num_fed=steps, law=DraftLaw(torch.stack([law for _, law in drawn], dim=1)))


class Branching(Drafter):
    """Two branches behind the root; narrower than others."""

    def propose(self, batch: DraftBatch) -> DraftTree:
        tokens = batch.root_tokens.unsqueeze(1).repeat(1, 3)
        parents = torch.full_like(tokens, NO_NODE)
        parents[:, 1:] = 0
        return DraftTree(tokens, parents, depth=1, num_fed=1)


def sampled() -> SimpleNamespace:
    return SimpleNamespace(
        is_all_greedy=False,
        sampling_seed=None,
        temperatures=on_device(torch.ones(SIZE, 1)),
        top_ks=on_device(torch.full((SIZE,), 20)),
        top_ps=on_device(torch.full((SIZE,), 0.9)),
        min_ps=on_device(torch.full((SIZE,), 0.1)),
        need_top_k_sampling=True,
        need_top_p_sampling=True,
        need_min_p_sampling=True,
        max_top_k=20,
    )


def steady_step(num_drafters: int, drafter: type[Drafter] | None = None, **kwargs: Any) -> tuple[Seen, Any]:
    """The third step of the same requests, and its result."""
    from benchmarks.stub_worker import StubSteps

    with watched_device():
        step = StubSteps(num_drafters, SIZE, str(DEVICE), **kwargs)
        if drafter is not None:
            step.worker.drafters[::2] = [drafter(each.spec) for each in step.worker.drafters[::2]]
        step()
        step()
    with watched_device() as seen:
        result = step()
    return seen, result


def waits(seen: Seen) -> list[str]:
    return [str(wait) for wait in seen.waits]


def ours(seen: Seen) -> Counter[str]:
    return Counter({place: count for place, count in seen.launches.items() if not place.startswith(STUBS)})


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sglang.srt.speculative.spec_utils  # noqa: F401

    from sglang_hetero_spec.worker import draft_sampling, hetero_worker

    monkeypatch.setattr(hetero_worker, "has_fixed_width", lambda target: False)
    group = SimpleNamespace(world_size=1)
    monkeypatch.setattr(draft_sampling, "get_parallel", lambda: SimpleNamespace(tp_group=group))


@pytest.fixture(params=["torch", "triton"])
def merge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    from sglang_hetero_spec.worker import merged_input

    monkeypatch.setattr(merged_input, "merges_in_triton", lambda device: request.param == "triton")
    module = ModuleType("merge_kernel")
    module.merge_kernel = StandInKernel("merge_kernel")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sglang_hetero_spec.cuda.merge_kernel", module)
    return request.param


@pytest.mark.parametrize("num_drafters", [1, 4])
def test_chains(num_drafters: int, merge: str) -> None:
    seen, result = steady_step(num_drafters)
    assert waits(seen) == []
    assert result.cap_lens.tolist() == [5] * SIZE


def test_trees_and_chains_of_unequal_width(merge: str) -> None:
    seen, result = steady_step(4, Branching)
    assert waits(seen) == []
    assert result.cap_lens.tolist() == [3, 5] * (SIZE // 2)


@pytest.mark.parametrize("num_drafters", [1, 4])
def test_sampling_parameters(num_drafters: int, merge: str) -> None:
    seen, _ = steady_step(num_drafters, Drawing, sampling_info=sampled())
    assert waits(seen) == []


@pytest.mark.parametrize("num_drafters", [1, 4])
def test_graphs_for_wider_trees(num_drafters: int, merge: str) -> None:
    """Trees are padded to the next width that was captured."""
    from benchmarks.stub_worker import StubSteps

    widths = SimpleNamespace(smallest=lambda needed, size: needed + 3, at=lambda width: nullcontext())
    with watched_device():
        step = StubSteps(num_drafters, SIZE, str(DEVICE))
        step.worker._verify_widths = widths
        step()
    with watched_device() as seen:
        result = step()
    assert waits(seen) == []
    assert result.next_token_ids.shape == (SIZE * 8,)


def test_two_drafters_for_every_request(merge: str) -> None:
    seen, result = steady_step(4, in_two=True)
    assert waits(seen) == []
    # Both propose the same: what they have together is known to the device alone.
    assert result.cap_lens.is_cuda and held(result.cap_lens).tolist() == [5] * SIZE


def test_two_drafters_and_sampling_parameters(merge: str) -> None:
    seen, _ = steady_step(4, Drawing, in_two=True, sampling_info=sampled())
    assert waits(seen) == []


def test_a_request_that_leaves_or_joins_costs_copies_but_no_wait() -> None:
    from benchmarks.stub_worker import StubSteps

    with watched_device():
        step = StubSteps(4, SIZE, str(DEVICE))
        step()
    with watched_device() as seen:
        step.keep(SIZE - 3)
        step()
    assert waits(seen) == []
    assert sum(seen.copies.values()) == 7


# Launches of ours in a greedy step, without drafters: how it was measured is above, what each is for below. More are
# host time on a GPU: 4 to 8 us each, of 150 us in all.
MOST = {("torch", 1): 15, ("torch", 4): 19, ("triton", 1): 13, ("triton", 4): 17}


@pytest.mark.parametrize("num_drafters", [1, 4])
def test_launches(num_drafters: int, merge: str) -> None:
    seen, _ = steady_step(num_drafters)
    found = ours(seen)
    table = "\n".join(f"{count:4} {place}" for place, count in sorted(found.items()))
    print(f"{merge}, {num_drafters} drafters: {sum(found.values())} launches\n{table}")
    assert sum(found.values()) == MOST[merge, num_drafters], table
    assert sum(seen.copies.values()) == (merge == "triton"), "the kernel's table of addresses"


def test_launches_of_two_drafters_for_every_request() -> None:
    seen, _ = steady_step(4, in_two=True)
    assert sum(ours(seen).values()) == 310, ours(seen)
