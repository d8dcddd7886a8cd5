"""SGLang's FlashInfer backend with tree verification in two parts, where it can and where it was measured faster.

Given to SGLang through its registry of attention backends, under FlashInfer's own name, for the target alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS, register_attention_backend
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.runtime_context import get_parallel, get_spec

from sglang_hetero_spec.cuda.crossover import PARTS, choose
from sglang_hetero_spec.cuda.plan_arrays import Trees, fill
from sglang_hetero_spec.cuda.tree_attention import (
    AttentionShape,
    FlashInferTreeAttention,
    GraphBuffers,
    TreeAttention,
)
from sglang_hetero_spec.cuda.tree_plan import plan_tree
from sglang_hetero_spec.errors import HeteroError

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

# A graph holds one way for all contexts; it is chosen for this one, where a speculative server spends its time.
GRAPH_CONTEXT = 2048


@dataclass
class TreeMetadata:
    """What a layer needs of a planned forward: its kind's attention. Takes the place of SGLang's PrefillMetadata."""

    calls: list[TreeAttention]


class TreeFlashInferBackend(FlashInferAttnBackend):
    """FlashInferAttnBackend whose target verification reads the committed prefix without a mask.

    A verify input with a `tree_mask` is verified in two parts; in graphs all of them are, or none.
    """

    def __init__(self, runner: ModelRunner, init_new_workspace: bool = False) -> None:
        super().__init__(runner, init_new_workspace=init_new_workspace)
        updater = self.indices_updater_prefill
        self._shape = AttentionShape(
            num_qo_heads=updater.num_qo_heads,
            num_kv_heads=updater.num_kv_heads,
            head_dim=updater.head_dim,
            q_dtype=updater.q_data_type,
            kv_dtype=updater.data_type,
            page_size=runner.page_size,
        )
        # By SGLang's number of the layer's kind: with a window the windowed layers come first.
        self._windows = (-1,) if self.dispatch_reason is None else (runner.sliding_window_size, -1)
        self._device_name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self._width = get_spec().speculative_num_draft_tokens
        rows = runner.req_to_token_pool.req_to_token.shape[0]
        self._tree_mask = torch.ones(rows * self._width**2, dtype=torch.bool, device=runner.device)
        self._eager_calls: list[TreeAttention] = []
        self._graph_calls: dict[int, list[TreeAttention]] = {}
        self._graph_buffers: list[GraphBuffers] = []
        self._graphs_in_parts = False

    def tree_mask_for(self, batch_size: int, width: int, longest: int, in_graph: bool) -> torch.Tensor | None:
        """Where a step's tree masks go (bool, at least [b * D * D]), or None: it is verified in SGLang's way.

        longest: tokens of the longest context, on the host.
        """
        if batch_size * width**2 > self._tree_mask.numel():
            return None
        in_parts = self._graphs_in_parts if in_graph else self._in_parts((batch_size,), width, longest)
        return self._tree_mask if in_parts else None

    def _in_parts(self, batch_sizes: tuple[int, ...], width: int, context: int) -> bool:
        # SGLang's way reads the first tokens of the context where a window wants the last ones, and shifts the mask
        # (eagle_info.py, generate_attn_arg_prefill is not told where the window begins).
        return len(self._windows) > 1 or choose(self._device_name, batch_sizes, width, context) == PARTS

    # SGLang's calls, in the order of a step.

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int, kv_indices_buf: Any = None) -> None:
        super().init_cuda_graph_state(max_bs, max_num_tokens, kv_indices_buf)
        sizes = tuple(size for size in (1, 2, 4, 8, 16, 32, 64, 128, max_bs) if size <= max_bs)
        self._graphs_in_parts = self._in_parts(sizes, self._width, GRAPH_CONTEXT)
        if self._graphs_in_parts:
            longest, page_size = self.max_context_len, self._shape.page_size
            self._graph_buffers = [
                GraphBuffers.allocate(max_bs, self._width, longest, page_size, window, self._tree_mask.device)
                for window in self._windows
            ]

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        if forward_batch.forward_mode.is_target_verify() and _tree_mask_of(forward_batch) is not None:
            if not self._eager_calls:
                self._eager_calls = [FlashInferTreeAttention(self.workspace_buffer, self._shape) for _ in self._windows]
            self._plan(forward_batch, self._eager_calls, forward_batch.spec_info.draft_token_num)
        else:
            super().init_forward_metadata(forward_batch)

    def init_forward_metadata_out_graph(self, forward_batch: ForwardBatch, in_capture: bool = False) -> None:
        if not (self._graphs_in_parts and forward_batch.forward_mode.is_target_verify()):
            super().init_forward_metadata_out_graph(forward_batch, in_capture)
            return
        batch_size = forward_batch.batch_size
        if not in_capture and _tree_mask_of(forward_batch) is None:
            raise RuntimeError("A graph that attends in two parts was given trees whose masks are not by themselves.")
        if in_capture:
            self._graph_calls[batch_size] = [
                FlashInferTreeAttention(self.workspace_buffer, self._shape, buffers.of(batch_size))
                for buffers in self._graph_buffers
            ]
        self._plan(forward_batch, self._graph_calls[batch_size], self._width)

    def _plan(self, forward_batch: ForwardBatch, calls: list[TreeAttention], width: int) -> None:
        batch_size = forward_batch.batch_size
        trees = Trees(
            table=self.req_to_token_pool.req_to_token,
            rows=forward_batch.req_pool_indices[:batch_size],
            seq_lens=forward_batch.seq_lens[:batch_size],
            positions=forward_batch.positions,
            mask=self._tree_mask,
        )
        for window, call in zip(self._windows, calls, strict=True):
            lens = forward_batch.seq_lens_cpu[:batch_size]
            # A tree of D nodes is at most D - 1 deep, whatever this one is: one plan for a graph.
            plan = plan_tree(lens, width, width - 1, self._shape.page_size, window)
            call.plan(plan, fill(plan, trees))
        self.forward_metadata = TreeMetadata(calls)

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        if not isinstance(self.forward_metadata, TreeMetadata):
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        pool = self.token_to_kv_pool
        if k is not None and save_kv_cache:
            where = KVWriteLoc.for_layer(forward_batch, layer, swa_loc=None)
            pool.set_kv_buffer(layer, where, k, v, *self._kv_write_scales(layer))
        output = self.forward_metadata.calls[int(self._get_wrapper_idx(layer))].run(
            q.contiguous().view(-1, layer.tp_q_head_num, layer.head_dim),
            pool.get_kv_buffer(layer.layer_id),
            sm_scale=layer.scaling,
            k_scale=layer.k_scale_float,
            v_scale=layer.v_scale_float,
        )
        return output.view(-1, layer.tp_q_head_num * layer.head_dim)


def _tree_mask_of(forward_batch: ForwardBatch) -> torch.Tensor | None:
    return getattr(forward_batch.spec_info, "tree_mask", None)


def why_not_in_parts(runner: ModelRunner) -> str | None:
    """What keeps this runner's verification in SGLang's way, in one clause, or None."""
    config = runner.model_config
    text = config.hf_text_config
    reasons = (
        (runner.is_draft_worker, "it is a draft model's"),
        (runner.use_mla_backend, "the model uses multi-head latent attention"),
        (runner.is_hybrid_swa, "the model's KV pool is a hybrid of sliding windows"),
        (config.is_encoder_decoder, "the model has cross attention"),
        (getattr(text, "attn_logit_softcapping", None) is not None, "the model caps its attention logits"),
        (
            (runner.prefill_attention_backend_str, runner.decode_attention_backend_str) != ("flashinfer", "flashinfer"),
            "prefill and decode have different attention backends",
        ),
        (runner.kv_index_translator.reads_are_translated, "the KV pool translates its slots"),
        (get_parallel().attn_dcp_size > 1, "the context is split between ranks"),
        (runner.server_args.enable_deterministic_inference, "deterministic inference is on"),
        (runner.server_args.enable_two_batch_overlap, "two batches overlap"),
        (runner.server_args.enable_pdmux, "prefill and decode share the GPU (PD multiplexing)"),
        (runner.dtype not in (torch.float16, torch.bfloat16), f"FlashInfer has no kernel for {runner.dtype}"),
        (runner.kv_cache_dtype.itemsize < 1 or runner.kv_cache_dtype == torch.uint8, "the KV cache is packed"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def refuse_windows(runner: ModelRunner, problem: str) -> None:
    """HeteroError for a target whose windowed layers SGLang's way would verify with a shifted mask (`_in_parts`).
    problem: why_not_in_parts."""
    if runner.sliding_window_size is not None and not runner.is_draft_worker:
        raise HeteroError(
            f"HETERO cannot verify for the target {runner.model_config.model_path} on FlashInfer: it has layers with a"
            f" sliding window, and {problem}; start with --attention-backend triton."
        )


def register_tree_backend(own_workspaces: bool = False) -> None:
    """From now on `flashinfer` makes the target's backend ours. Idempotent; before attention backends are made.

    own_workspaces: draft models do not share FlashInfer's workspace, so that several may run at once.
    """
    known = ATTENTION_BACKENDS["flashinfer"]
    stock = known.stock if isinstance(known, _Creator) else known
    ours = _Creator(stock, own_workspaces)
    if ours != known:
        register_attention_backend("flashinfer")(ours)


@dataclass(frozen=True)
class _Creator:
    """Makes our backend, or `stock`'s where ours cannot serve."""

    stock: Callable[[ModelRunner], Any]
    own_workspaces: bool

    def __call__(self, runner: ModelRunner) -> Any:
        if runner.is_draft_worker and self.own_workspaces:
            # SGLang's creators read it here, whoever has set it (attention_backend_setup.py).
            runner.init_new_workspace = True
        problem = why_not_in_parts(runner)
        if problem is not None:
            refuse_windows(runner, problem)
            return self.stock(runner)
        return TreeFlashInferBackend(runner, init_new_workspace=runner.init_new_workspace)


__all__ = ["TreeFlashInferBackend", "register_tree_backend", "why_not_in_parts"]
