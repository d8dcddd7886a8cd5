"""Each op of sglang_hetero_spec/cpu beside the loop over requests that it stands in for."""

from __future__ import annotations

from benchmarks.cpu_ops import attention, sampling, slots, trees
from benchmarks.cpu_ops.case import Case

CASES: tuple[Case, ...] = (*attention.CASES, *slots.CASES, *trees.CASES, *sampling.CASES)
