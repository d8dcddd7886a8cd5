"""Drafts drawn at random, with the request's own temperature and filters, so that rejection sampling can be exact.

A draft drawn from q is accepted with min(1, p/q): sum(min(p, q)) of the steps, which is never below what verification
accepts of the same drafts without looking at q (SGLang's rule for trees).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from sglang.srt.runtime_context import get_parallel

from sglang_hetero_spec.cpu.sampling import draw, filter_probs
from sglang_hetero_spec.cuda.transfer import kept_on_device
from sglang_hetero_spec.drafters.tree import finite

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch

# Columns of the seeded coins that verification does not use (eagle_utils.py, `_seeded_verify_coins`: the first ones).
_FIRST_COLUMN = 1 << 16


@dataclass(frozen=True)
class DraftSampler:
    """drafters.base.Sampler. temperatures: [b, 1]; top_ks, top_ps, min_ps: [b], or None where no request has any;
    coins: [b, steps] float32 in [0, 1); certain: [b] bool, requests that take the likeliest whatever they ask for."""

    temperatures: torch.Tensor
    top_ks: torch.Tensor | None
    top_ps: torch.Tensor | None
    min_ps: torch.Tensor | None
    max_top_k: int | None
    coins: torch.Tensor
    certain: torch.Tensor | None = None

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        # A law with a NaN would be rejected whole, and nothing could be drawn from what it leaves.
        probs = (finite(logits) / self.temperatures).softmax(dim=-1)
        probs = filter_probs(probs, self.top_ks, self.top_ps, self.min_ps, self.max_top_k)
        if self.certain is not None:
            probs = torch.where(self.certain.unsqueeze(1), _only_the_likeliest(probs), probs)
        return draw(probs.double(), probs, self.coins[:, step]), probs

    def draw_from(self, probs: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        law = self._greedy(probs.nan_to_num(0.0))
        whole = torch.cat((law, (1 - law.sum(dim=-1, keepdim=True)).clamp(min=0)), dim=-1)
        return draw(whole.double(), whole, self.coins[:, step]), law

    def _greedy(self, probs: torch.Tensor) -> torch.Tensor:
        """The law, and of a greedy request its likeliest token alone."""
        rows = self.certain
        if self.top_ks is not None:
            rows = self.top_ks == 1 if rows is None else rows | (self.top_ks == 1)
        return probs if rows is None else torch.where(rows.unsqueeze(1), _only_the_likeliest(probs), probs)

    def select(self, numbers: list[int]) -> DraftSampler:
        if numbers == list(range(len(self.temperatures))):
            return self
        rows = kept_on_device(numbers, self.temperatures.device)

        def of(values: torch.Tensor | None) -> torch.Tensor | None:
            return None if values is None else values[rows]

        return replace(
            self,
            temperatures=self.temperatures[rows],
            top_ks=of(self.top_ks),
            top_ps=of(self.top_ps),
            min_ps=of(self.min_ps),
            coins=self.coins[rows],
            certain=of(self.certain),
        )

    def likeliest(self, numbers: list[int]) -> DraftSampler:
        among = set(numbers)
        certain = [number in among for number in range(len(self.temperatures))]
        return replace(self, certain=kept_on_device(certain, self.temperatures.device, torch.bool))


def _only_the_likeliest(probs: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(probs).scatter_(-1, probs.argmax(dim=-1, keepdim=True), 1.0)


def draft_sampler(batch: ScheduleBatch, num_steps: int) -> DraftSampler | None:
    """Of the whole batch; None where all of it is greedy."""
    info = batch.sampling_info
    if info.is_all_greedy:
        return None
    return DraftSampler(
        temperatures=info.temperatures,
        top_ks=info.top_ks if info.need_top_k_sampling else None,
        top_ps=info.top_ps if info.need_top_p_sampling else None,
        min_ps=info.min_ps if info.need_min_p_sampling else None,
        max_top_k=info.max_top_k,
        coins=_coins(info.sampling_seed, batch.seq_lens, num_steps),
    )


def _coins(seeds: torch.Tensor | None, seq_lens: torch.Tensor, num_steps: int) -> torch.Tensor:
    """float32 [b, num_steps]: of the seeds where there are any, the same on all ranks."""
    if seeds is None:
        coins = torch.rand((len(seq_lens), num_steps), device=seq_lens.device)
        group = get_parallel().tp_group
        if group.world_size > 1:
            group.broadcast(coins, src=0)
        return coins
    from sglang.kernels.ops.sampling.murmur_hash import murmur_hash32

    columns = torch.arange(_FIRST_COLUMN, _FIRST_COLUMN + num_steps, device=seq_lens.device)
    hashed = murmur_hash32(seeds.to(torch.uint64), seq_lens.to(torch.uint64), columns)
    return (hashed.to(torch.float64) / 2**32).float().clamp(max=1 - 2**-24)
