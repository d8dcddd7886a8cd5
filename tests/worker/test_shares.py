"""Who proposes with whom in a step, from the requests' tags."""

from __future__ import annotations

from collections.abc import Hashable
from types import SimpleNamespace

import pytest

from sglang_hetero_spec.router.route import Route

pytestmark = pytest.mark.usefixtures("sglang")


def split(togethers: list[Hashable], requests: list[tuple[int, ...]]) -> list[tuple[list[int], list[int]]]:
    """togethers: of each drafter; requests: the drafters of each. Returns (places, drafters) of each share."""
    from sglang_hetero_spec.worker.hetero_worker import HeteroWorker
    from sglang_hetero_spec.worker.request_state import RequestState, attach_state

    worker = SimpleNamespace(
        _heirs={},
        _fits=lambda req, drafter: True,
        drafters=[SimpleNamespace(together=together) for together in togethers],
    )
    reqs = [SimpleNamespace() for _ in requests]
    for req, own in zip(reqs, requests, strict=True):
        attach_state(req, RequestState(Route(None, "a", 1.0, "router"), own, may_draft=bool(own)))
    return [(share.places, share.drafters) for share in HeteroWorker._split(worker, reqs)]


def test_drafters_that_read_together_are_one_share_in_their_order() -> None:
    assert split(["a", "b", "a"], [(2,), (1,), (0,), (), (2,), (0,)]) == [([2, 5, 0, 4], [0, 0, 2, 2]), ([1], [1])]


def test_two_drafters_of_one_request_propose_apart() -> None:
    shares = split(["a", "a", "b"], [(0, 1), (1,), (1, 2)])
    assert shares == [([0, 1, 2], [0, 1, 1]), ([0], [1]), ([2], [2])]
    assert all(len(set(places)) == len(places) for places, _ in shares)
