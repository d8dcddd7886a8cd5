"""How fast mixed traffic is expected to be when each task has its drafter and all share one batch.

The model, and what it assumes:

- Every slot of a batch step holds a request of task t with the probability q[t], independently of the others, where
  q[t] is proportional to the steps that t's share of the tokens needs: slow tasks fill more slots.
- A step costs the sum of the draft times of the drafters present in it, each for as many requests as it has there,
  plus one verify forward. That forward is as wide as the widest tree present and costs what this drafter's forward
  costs in a batch of this size; with CUDA graphs the width is always the pool's widest (`fixed_width`).
- What a request costs beside that (prefill, scheduling) is as when its task ran alone.

With one request in flight, or one drafter for all, this is the sum over tasks; with more it is never less, since
k drafters in a batch cost k forwards. `apart` is therefore a lower bound of the seconds, which the search rests on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import comb


@dataclass(frozen=True)
class CostTable:
    """What the model needs of T tasks and K candidates at one concurrency C; inf where not measured.

    weights: [T], shares of the tokens; forwards (per token), verify (seconds per forward), other (seconds per
    token): [T, K]; draft: [T, K, C + 1], seconds per forward by number of requests.
    """

    weights: np.ndarray
    forwards: np.ndarray
    verify: np.ndarray
    other: np.ndarray
    draft: np.ndarray
    fixed_width: bool = False

    @property
    def concurrency(self) -> int:
        return self.draft.shape[2] - 1

    @property
    def apart(self) -> np.ndarray:
        """Seconds per token [T, K] of each task under each candidate, alone on the machine."""
        return self.forwards * (self.draft[:, :, -1] + self.verify) + self.other


def mixed_seconds_per_token(table: CostTable, choices: np.ndarray) -> np.ndarray:
    """Seconds per token of the mix, [M], for assignments `choices` (int [M, T]: each task's candidate)."""
    tasks = np.arange(choices.shape[1])
    steps = table.weights * table.forwards[tasks, choices]
    steps_in_all = steps.sum(axis=1, keepdims=True)
    share = steps / steps_in_all
    same = choices[:, :, None] == choices[:, None, :]
    drafter_share = np.minimum((same * share[:, None, :]).sum(axis=2), 1.0)
    # A task of no weight has no share; it must not divide by one either.
    part = np.divide(share, drafter_share, out=np.zeros_like(share), where=drafter_share > 0)
    draft = _expected_draft(table.draft[tasks, choices], part, drafter_share)
    verify = _expected_verify(table, table.verify[tasks, choices], same, share, drafter_share)
    other = (table.weights * table.other[tasks, choices]).sum(axis=1)
    return steps_in_all[:, 0] * (draft + verify) + other


def _expected_draft(draft: np.ndarray, part: np.ndarray, drafter_share: np.ndarray) -> np.ndarray:
    """Of a step, over how many requests each drafter finds in it (binomial). draft: [M, T, C + 1]."""
    concurrency = draft.shape[2] - 1
    number = np.arange(concurrency + 1)
    q = drafter_share[:, :, None]
    chance = comb(concurrency, number) * q**number * (1 - q) ** (concurrency - number)
    return (part * (chance * draft).sum(axis=2)).sum(axis=1)


def _expected_verify(
    table: CostTable,
    verify: np.ndarray,
    same: np.ndarray,
    share: np.ndarray,
    drafter_share: np.ndarray,
) -> np.ndarray:
    """Of a step: the dearest verify forward among the drafters present. verify: [M, T]."""
    by_drafter = (same * share[:, None, :] * verify[:, None, :]).sum(axis=2)
    by_drafter = np.divide(by_drafter, drafter_share, out=np.zeros_like(verify), where=drafter_share > 0)
    if table.fixed_width:
        return by_drafter.max(axis=1)
    mine, others = by_drafter[:, :, None], by_drafter[:, None, :]
    equal = same | (mine == others)
    dearer_share = np.minimum((~equal & (others > mine)) @ share[:, :, None], 1.0)[:, :, 0]
    equal_share = np.minimum((equal * share[:, None, :]).sum(axis=2), 1.0)
    none_dearer = (1 - dearer_share) ** table.concurrency
    all_cheaper = np.maximum(1 - dearer_share - equal_share, 0.0) ** table.concurrency
    weight = np.divide(share, equal_share, out=np.zeros_like(share), where=equal_share > 0)
    return (weight * by_drafter * (none_dearer - all_cheaper)).sum(axis=1)
