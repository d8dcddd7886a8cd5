"""How far a drafter's distribution is from the target's, each loss with the gradient of its paper.

Everywhere: log-probabilities [N, V] in float32, one row per answer position; the result is the mean over positions.
Sources: forward and reverse KL, Zhou et al., DistillSpec (arXiv 2310.08461); TVD++, Goel et al., Direct Alignment of
Draft Model for Speculative Decoding (arXiv 2403.00858).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_hetero_spec.build.align.answers import NOT_SHARED

_FLOOR = -100.0
_EPS = 1e-6

LogitLoss = Callable[[Tensor, Tensor], Tensor]


def log_probs(logits: Tensor, size: int) -> Tensor:
    """log softmax in float32 over the first `size` entries (vocabularies may be padded to different sizes)."""
    return logits[..., :size].float().log_softmax(-1).clamp_min(_FLOOR)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(target || drafter)."""
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / len(student)


class _ForwardKl(torch.autograd.Function):
    """Softmax and forward KL in one: what passes over [N, V] is most of the time that a small drafter learns for."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor) -> Tensor:
        student = logits.float().log_softmax(-1).clamp_min_(_FLOOR)
        wanted = teacher.exp()
        value = (torch.dot(wanted.flatten(), teacher.flatten()) - torch.dot(wanted.flatten(), student.flatten())) / len(
            student
        )
        ctx.save_for_backward(student.exp_().sub_(wanted))
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return distance * (gradient / len(distance)), None


def forward_kl_of_logits(logits: Tensor, teacher: Tensor) -> Tensor:
    """`forward_kl` of log_probs(logits), in less time and memory. logits: at least [N, V]; teacher: [N, V]."""
    return _ForwardKl.apply(logits[..., : teacher.shape[-1]], teacher)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(drafter || target)."""
    return F.kl_div(teacher, student, reduction="sum", log_target=True) / len(student)


def tvd(student: Tensor, teacher: Tensor) -> Tensor:
    """Total variation distance: 1 - what speculative sampling would accept."""
    return (student.exp() - teacher.exp()).abs().sum() / (2 * len(student))


def tvd_plus_plus(student: Tensor, teacher: Tensor) -> Tensor:
    """Value: the total variation distance. Gradient: the policy gradient of TVD++.

    A token's reward is 1 where the target holds it likelier than the drafter does; the advantage is the reward less
    its mean, over its standard deviation, both under the drafter in this batch. The expectation over the drafter's
    tokens is taken exactly, over the whole vocabulary, instead of by sampling.
    """
    with torch.no_grad():
        weight = student.exp()
        reward = (teacher > student).float()
        mean = (weight * reward).sum() / len(student)
        spread = ((weight * (reward - mean).square()).sum() / len(student)).sqrt()
        weight *= (reward - mean) / (spread + _EPS)
        value = tvd(student, teacher)
    surrogate = -(weight * student).sum() / len(student)
    return value + (surrogate - surrogate.detach())


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """By tokens: logits [N, V], the target's tokens [N]; NOT_SHARED ones teach nothing."""
    known = (tokens != NOT_SHARED).sum().clamp_min(1)
    return F.cross_entropy(logits.float(), tokens, ignore_index=NOT_SHARED, reduction="sum") / known


def with_rest(log_probs: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities [N, V] as [N, k + 1]: those of `ids` [N, k], and of everything else as one outcome."""
    kept = log_probs.gather(-1, ids)
    return append_rest(kept)


def append_rest(kept: Tensor) -> Tensor:
    """[N, k] log-probabilities and, last, that of everything else."""
    rest = (1.0 - kept.exp().sum(-1, keepdim=True)).clamp_min(_EPS).log()
    return torch.cat([kept, rest], -1)


LOGIT_LOSSES: dict[str, LogitLoss] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "tvd++": tvd_plus_plus,
}
