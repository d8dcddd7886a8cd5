"""The CUDA graphs of a pool's draft models: for which, how many, and the start-up table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.model_executor.cuda_graph_config import Backend, Phase, check_cuda_graph_backend
from sglang.srt.runtime_context import get_exec, get_parallel, get_spec

from sglang_hetero_spec.cuda.graphs.shapes import GraphShape, graph_shapes
from sglang_hetero_spec.cuda.support import GRAPHS_SWITCH, num_verify_widths, switch
from sglang_hetero_spec.errors import first_line
from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.worker.draft_model import PrunedHead, SGLangDraftModel

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
    from sglang_hetero_spec.cuda.graphs.staging import Staging
    from sglang_hetero_spec.cuda.graphs.verify_widths import VerifyWidths
    from sglang_hetero_spec.worker.pool_models import PoolModels

logger = logging.getLogger(__name__)


def capture_pool(models: PoolModels, in_parallel: bool) -> None:
    """Once attention backends exist. From then on the models draft by graphs wherever one holds the batch.

    in_parallel: drafters have streams of their own."""
    from sglang.srt.model_executor.runner.base_cuda_graph_runner import freeze_gc

    from sglang_hetero_spec.cuda.graphs.capture import budget_of, capture_all, free_device_bytes, print_captured

    warn_of_windowed_trees(models)
    if switch(GRAPHS_SWITCH) == "off" or check_cuda_graph_backend(Phase.DECODE, Backend.DISABLED):
        logger.info("HETERO: CUDA graphs are off; drafters launch their kernels one by one.")
        return
    made = make_graphs(models, in_parallel)
    if not made:
        return
    with freeze_gc(get_exec().graph.enable_cudagraph_gc):
        budget = budget_of(made, free_device_bytes())
        rows = capture_all(made, budget, free_device_bytes, all_ranks_say)
    for name, graphs in made.items():
        models.by_name[name].graphs = graphs
    print_captured(rows, budget)


def make_graphs(models: PoolModels, in_parallel: bool) -> dict[str, DraftGraphs]:
    """Nothing captured yet, of each model that can have some; by the drafters' names."""
    from sglang_hetero_spec.cuda.graphs.staging import Staging

    made, staging = {}, Staging()
    for name, model in models.by_name.items():
        problem, shapes = why_no_graphs(model), shapes_of(models, name)
        if problem is None and shapes:
            try:
                made[name] = _room_for(model, shapes, staging, in_parallel)
            except torch.OutOfMemoryError as error:
                problem = f"there is no room for them ({first_line(error)})"
        if problem is not None:
            logger.warning("HETERO: drafter %s drafts without CUDA graphs: %s.", name, problem)
    return made


def _room_for(
    model: SGLangDraftModel, shapes: tuple[GraphShape, ...], staging: Staging, in_parallel: bool
) -> DraftGraphs:
    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
    from sglang_hetero_spec.cuda.graphs.recorder import CudaRecorder

    pool = torch.cuda.graph_pool_handle() if in_parallel else None

    def make_recorder(_attn_backend: Any) -> CudaRecorder:
        return CudaRecorder(pool)

    sizes = largest_batch(model), num_logits(model)
    return DraftGraphs(model.runner, shapes, *sizes, make_recorder, model.adapters, staging)


def warn_of_windowed_trees(models: PoolModels) -> None:
    for spec in models.pool.drafters:
        model = models.by_name.get(spec.base or spec.name)
        if model is not None and spec.topk > 1 and model.runner.sliding_window_size is not None:
            logger.warning(
                "HETERO: drafter %s proposes trees with a model of sliding windows, where SGLang's attention reads"
                " the first tokens of a long context instead of the last. Expect short accept lengths, or set its topk"
                " to 1 in pool.json.",
                spec.name,
            )


def all_ranks_say(mine: bool) -> bool:
    group = get_parallel().tp_group
    return mine if group.world_size == 1 else all(group.all_gather_object(mine))


def capture_verify_widths(runner: ModelRunner, pool: Pool) -> VerifyWidths | None:
    """Beside the one that SGLang has captured; None where there is no other."""
    from sglang_hetero_spec.cuda.graphs.verify_widths import capture_widths, wanted_widths

    proposed = [spec.num_draft_tokens for spec in pool.drafters]
    further = wanted_widths(proposed, get_spec().speculative_num_draft_tokens, num_verify_widths())
    if not further or check_cuda_graph_backend(Phase.DECODE, Backend.DISABLED):
        return None
    captured = capture_widths(runner, further)
    logger.info("HETERO: verification is captured for trees of %s nodes.", ", ".join(map(str, captured.widths)))
    return captured


def has_fixed_width(target: ModelRunner) -> bool:
    """Whether trees on a GPU must have the server's one number of nodes: its graphs were captured for no other, and
    attention backends but FlashInfer's take it from the server's arguments."""
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    return target.decode_cuda_graph_runner is not None or not isinstance(target.attn_backend, FlashInferAttnBackend)


def why_no_graphs(model: SGLangDraftModel) -> str | None:
    """In one clause."""
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    runner = model.runner
    if not isinstance(runner.attn_backend, FlashInferAttnBackend):
        return f"its attention backend is {type(runner.attn_backend).__name__}, and graphs are for FlashInfer's"
    if runner.kv_index_translator.reads_are_translated:
        return "its KV pool translates its slots"
    if get_parallel().moe_ep_size > 1:
        return "with expert parallelism graphs would have to know how many tokens are padding"
    if model.head.ids is not None and num_logits(model) != model.head.size:
        return "its logits are cut to some ids after the forward"
    return None


def shapes_of(models: PoolModels, name: str) -> tuple[GraphShape, ...]:
    """Of the drafter with this name, which has a model, and of its adapters."""
    specs = [spec for spec in models.pool.drafters if name in (spec.name, spec.base)]
    has_pairs = models.pool.merged_draft_tokens is not None
    deepest = max(spec.num_steps for spec in models.pool.drafters) if has_pairs else 0
    shapes = graph_shapes(specs, deepest, models.has_own_sequences(name))
    if models.by_name[name].runner.sliding_window_size is None:
        return shapes
    # In graphs SGLang plans windows and trees over the first tokens of the context, where a sliding window wants the
    # last (eagle_info.py, both generate_attn_arg_prefill).
    return tuple(shape for shape in shapes if shape.kind == "next")


def largest_batch(model: SGLangDraftModel) -> int:
    """Requests of the largest graph: what SGLang captures for the target, and no more than can run."""
    return min(max(get_exec().graph.cuda_graph_config.decode.bs), model.runner.req_to_token_pool.size)


def num_logits(model: SGLangDraftModel) -> int:
    """Columns that the model's head leaves: fewer than its vocabulary where it was pruned."""
    head = getattr(model.runner.model, "lm_head", None)
    return head.weight.shape[0] if isinstance(head, PrunedHead) else model.runner.model_config.vocab_size
