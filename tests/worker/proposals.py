"""Proposals as a worker makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.worker.merge import Proposal


def proposal(drafter: int, places: Sequence[int], tree: DraftTree) -> Proposal:
    """Of one drafter for all of its requests."""
    return Proposal(list(places), torch.tensor(places), [drafter] * len(places), tree)
