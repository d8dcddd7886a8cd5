"""Verification that samples what the target would have sampled, on every device and for every parameter.

SGLang's own function is used wherever it is exact: greedy batches, and sampled ones on CUDA without min-p, custom
logit processors, and top-k and top-p together. The rest goes through the same steps here: logits as the target's
sampler would see them, temperature, its filters, and a walk down the tree that accepts a child with the target's
probability for it and otherwise samples from what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sglang.kernels.ops.speculative.spec_tree import verify_tree_greedy_func
from sglang.srt.layers.sampler import apply_custom_logit_processor
from sglang.srt.runtime_context import get_exec, get_parallel
from sglang.srt.sampling.penaltylib.repetition_penalty import apply_scaling_penalties
from sglang.srt.utils.async_probe import sanitize_nan_logits

from sglang_hetero_spec.cpu.sampling import draw
from sglang_hetero_spec.worker.merge import MergedLaw
from sglang_hetero_spec.worker.verify_input import HeteroVerifyInput

if TYPE_CHECKING:
    from sglang.srt.layers.logits_processor import LogitsProcessorOutput
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

Verdict = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sample_exactly(
    original: Callable[..., Verdict],
    verify_input: Any,
    batch: ScheduleBatch,
    logits_output: LogitsProcessorOutput,
    grammar_mask: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Verdict:
    """Around eagle_utils.eagle_sample. Returns predict [b*D] int32 (the token after each accepted node),
    accept_lens [b] int32 (bonus included), accept_index [b, depth+1] int32 (global node numbers, -1 padded)."""
    info = batch.sampling_info
    is_ours = isinstance(verify_input, HeteroVerifyInput) and not batch.forward_mode.is_idle()
    if not is_ours or (verify_input.law is None and _upstream_is_exact(info, batch.device)):
        return original(verify_input, batch, logits_output, grammar_mask, *args, **kwargs)
    logits = logits_output.next_token_logits
    _adjust(logits, info, verify_input.draft_token_num, grammar_mask)
    predict, accept_index, num_correct = _outputs(verify_input, logits)
    if info.is_all_greedy:
        _accept_greedily(verify_input, logits, predict, accept_index, num_correct)
    else:
        _accept_by_sampling(verify_input, batch, logits, predict, accept_index, num_correct)
    _agree_across_ranks(predict, accept_index, num_correct)
    return predict, num_correct + 1, accept_index


def _upstream_is_exact(info: SamplingBatchInfo, device: str | torch.device) -> bool:
    """Upstream verifies without min-p and custom processors, and lets top-p measure what top-k left over."""
    if info.has_custom_logit_processor:
        return False
    if info.is_all_greedy:
        return True
    has_two_filters = info.need_top_k_sampling and info.need_top_p_sampling
    return torch.device(device).type == "cuda" and not info.need_min_p_sampling and not has_two_filters


def _adjust(logits: torch.Tensor, info: SamplingBatchInfo, width: int, grammar_mask: Any) -> None:
    """Penalties, bias, grammar and custom processors, in place. logits: [b*width, V], node by node.

    Penalties are those of the root for every node; requests that have any are not drafted for
    (request_state.drafting_is_exact), so no other node counts.
    """
    sanitize_nan_logits(logits, "hetero verify: target model logits")
    if info.acc_additive_penalties is not None:
        logits.add_(info.acc_additive_penalties.repeat_interleave(width, dim=0))
    if info.acc_scaling_penalties is not None:
        apply_scaling_penalties(logits, info.acc_scaling_penalties.repeat_interleave(width, dim=0))
    if info.logit_bias is not None:
        logits.add_(info.logit_bias.repeat_interleave(width, dim=0))
    if grammar_mask is not None:
        grammar_mask.apply(logits)
    if info.has_custom_logit_processor:
        apply_custom_logit_processor(logits, info, width)


def _outputs(verify_input: HeteroVerifyInput, logits: torch.Tensor) -> Verdict:
    batch_size = verify_input.retrieve_index.shape[0]
    device = logits.device
    predict = torch.zeros(logits.shape[0], dtype=torch.int32, device=device)
    accept_index = torch.full((batch_size, verify_input.max_tree_depth), -1, dtype=torch.int32, device=device)
    return predict, accept_index, torch.zeros(batch_size, dtype=torch.int32, device=device)


def _accept_greedily(
    verify_input: HeteroVerifyInput,
    logits: torch.Tensor,
    predict: torch.Tensor,
    accept_index: torch.Tensor,
    num_correct: torch.Tensor,
) -> None:
    shape = verify_input.retrieve_index.shape
    verify_tree_greedy_func(
        predicts=predict,
        accept_index=accept_index,
        accept_token_num=num_correct,
        candidates=verify_input.draft_token.view(shape),
        retrieve_index=verify_input.retrieve_index,
        retrieve_next_token=verify_input.retrieve_next_token,
        retrieve_next_sibling=verify_input.retrieve_next_sibling,
        target_predict=logits.argmax(dim=-1).view(shape),
        topk=verify_input.tree_topk,
    )


def _accept_by_sampling(
    verify_input: HeteroVerifyInput,
    batch: ScheduleBatch,
    logits: torch.Tensor,
    predict: torch.Tensor,
    accept_index: torch.Tensor,
    num_correct: torch.Tensor,
) -> None:
    from sglang.srt.speculative.eagle_utils import _verify_coins

    from sglang_hetero_spec.cpu.sampling import tree_speculative_sampling_target_only as sample_on_cpu

    shape = verify_input.retrieve_index.shape
    candidates = verify_input.draft_token.view(shape)
    probs = target_probs(logits, batch.sampling_info, shape[1]).view(*shape, -1)
    coins, final_coins = _verify_coins(
        sampling_info=batch.sampling_info,
        seq_lens=batch.seq_lens,
        draft_token_num=shape[1],
        candidates=candidates,
        device=logits.device,
    )
    sample = _cuda_sampler() if logits.is_cuda else sample_on_cpu
    sample(
        predicts=predict,
        accept_index=accept_index,
        accept_token_num=num_correct,
        candidates=candidates,
        # `retrive` as SGLang's compiled op spells it
        retrive_index=verify_input.retrieve_index,
        retrive_next_token=verify_input.retrieve_next_token,
        retrive_next_sibling=verify_input.retrieve_next_sibling,
        uniform_samples=coins,
        uniform_samples_for_final_sampling=final_coins,
        target_probs=probs,
        draft_probs=torch.zeros_like(probs),
        threshold_single=1.0,
        threshold_acc=1.0,
        deterministic=True,
    )
    if verify_input.law is not None:
        drawn = reject_by_law(verify_input.law, candidates, probs, coins, final_coins)
        _overrule(drawn, verify_input.law.drawn, candidates, predict, accept_index, num_correct)


@dataclass(frozen=True)
class Walk:
    """num_correct: [b] int64, drafts accepted; last: [b] int64, the token behind them."""

    num_correct: torch.Tensor
    last: torch.Tensor


def reject_by_law(
    law: MergedLaw,
    candidates: torch.Tensor,
    target_probs: torch.Tensor,
    coins: torch.Tensor,
    final_coins: torch.Tensor,
) -> Walk:
    """Rejection sampling along chains (arXiv 2211.17192, algorithm 1; 2502.05202, algorithms 3 and 4).

    A draft drawn from q is accepted with min(1, p/q); at the first that is not, the token is drawn from what p has more
    than q, behind all of them from p. Proposals that are no target token are rejected, and their mass is missing in q.
    candidates: int [b, D]; target_probs: [b, D, V]; coins: [b, D], that of node i decides about the draft behind it;
    final_coins: [b]. Only rows whose drafts were drawn mean anything.
    """
    drafts = candidates[:, 1:].long()
    depth = drafts.shape[1]
    p = target_probs[:, :depth].gather(2, drafts.unsqueeze(2)).squeeze(2)
    q = law.probs[:, :depth].gather(2, drafts.unsqueeze(2)).squeeze(2)
    places = torch.arange(depth, device=drafts.device)
    is_draft = (places < law.num_drafts.unsqueeze(1)) & ~law.void[:, :depth]
    # A coin may be 0: what has no mass in p is never accepted.
    accepted = is_draft & (p > 0) & (coins[:, :depth] * q < p)
    num_correct = accepted.long().cumprod(dim=1).sum(dim=1)
    rows = torch.arange(len(drafts), device=drafts.device)
    at_end = target_probs[rows, num_correct].double()
    was_rejected = num_correct < law.num_drafts
    rest = (at_end - law.probs[rows, num_correct].double() * was_rejected.unsqueeze(1)).clamp_(min=0)
    return Walk(num_correct, draw(rest, at_end, final_coins))


def _overrule(
    walk: Walk,
    drawn: torch.Tensor,
    candidates: torch.Tensor,
    predict: torch.Tensor,
    accept_index: torch.Tensor,
    num_correct: torch.Tensor,
) -> None:
    """Put the verdict on drawn chains where that of the target-only rule stands. drawn: [b] bool."""
    width = candidates.shape[1]
    nodes = torch.arange(accept_index.shape[1], device=candidates.device)
    starts = torch.arange(len(drawn), device=candidates.device).unsqueeze(1) * width
    path = torch.where(nodes <= walk.num_correct.unsqueeze(1), starts + nodes, -1)
    accept_index.copy_(torch.where(drawn.unsqueeze(1), path, accept_index))
    num_correct.copy_(torch.where(drawn, walk.num_correct, num_correct))
    tokens = candidates.long().roll(-1, dims=1)
    tokens.scatter_(1, walk.num_correct.unsqueeze(1), walk.last.unsqueeze(1))
    predict.view(candidates.shape).copy_(torch.where(drawn.unsqueeze(1), tokens, predict.view(candidates.shape)))


def _cuda_sampler() -> Callable[..., None]:
    from sglang.kernels.ops.speculative.verify_sampling import tree_speculative_sampling_target_only

    return tree_speculative_sampling_target_only


def target_probs(logits: torch.Tensor, info: SamplingBatchInfo, width: int) -> torch.Tensor:
    """The distribution that the target samples from at each node. logits: [b*width, V]; returns float32."""
    from sglang_hetero_spec.cpu.sampling import filter_probs

    probs = (logits.float() / info.temperatures.repeat_interleave(width, dim=0)).softmax(dim=-1)
    top_ks = info.top_ks.repeat_interleave(width, dim=0) if info.need_top_k_sampling else None
    top_ps = info.top_ps.repeat_interleave(width, dim=0) if info.need_top_p_sampling else None
    min_ps = info.min_ps.repeat_interleave(width, dim=0) if info.need_min_p_sampling else None
    if _filters_are_joint(info):
        return filter_probs(probs, top_ks, top_ps, min_ps, info.max_top_k)
    probs = filter_probs(probs, top_ks, None, None, info.max_top_k)
    return filter_probs(probs, None, top_ps, min_ps)


def _filters_are_joint(info: SamplingBatchInfo) -> bool:
    """Whether top-p measures mass before top-k cuts (layers/sampler.py, `_sample_from_probs`): SGLang's PyTorch
    sampler always does, FlashInfer's (`filter_apply_order="joint"`) where no request of the batch has min-p."""
    return get_exec().kernel.sampling_backend == "pytorch" or not info.need_min_p_sampling


def _agree_across_ranks(*tensors: torch.Tensor) -> None:
    """All ranks commit what rank 0 sampled: their softmax may differ in the last bit."""
    group = get_parallel().tp_group
    if group.world_size > 1:
        for tensor in tensors:
            group.broadcast(tensor, src=0)
