"""Draft models loaded by SGLang, one TpModelWorker each, and the container that SGLang's scheduler asks about them."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sglang.srt.configs.draft_parallel import DraftParallelSpec, DraftTPExecution
from sglang.srt.layers.moe.utils import draft_model_build_scope
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.runtime_context import get_model, get_schedule, get_spec
from sglang.srt.speculative.base_spec_worker import EagleDraftWorkerBase
from sglang.srt.speculative.draft_parallel import resolve_draft_parallel_layout
from sglang.srt.speculative.spec_utils import draft_pp_context, draft_tp_context
from sglang.srt.utils.hf_transformers_utils import get_config, get_context_length, get_hf_text_config

from sglang_hetero_spec.pool import DrafterSpec

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner
    from sglang.srt.server_args import ServerArgs

logger = logging.getLogger(__name__)


class DraftWorkers(EagleDraftWorkerBase):
    """All draft models of a pool, as one SGLang draft worker."""

    def __init__(self, server_args: ServerArgs, gpu_id: int, nccl_port: int, target_worker: TpModelWorker) -> None:
        super().__init__()
        self._worker_args = {"server_args": server_args, "gpu_id": gpu_id, "nccl_port": nccl_port}
        self._target_worker = target_worker
        self.parallel_layout = resolve_draft_parallel_layout(
            DraftParallelSpec(tp_execution=DraftTPExecution.TARGET_LAYOUT)
        )
        self.workers: list[TpModelWorker] = []
        self._slots_per_token: dict[int, float] = {}

    def load(self, spec: DrafterSpec, slots_per_token: float | None = None) -> ModelRunner:
        """Load the weights under spec.path; KV pool and attention come later, when SGLang says so.

        slots_per_token: for a drafter with sequences of its own, how many KV slots it has for each of the target's.
        """
        longest = self._target_worker.model_runner.model_config.context_len
        logger.info("HETERO: loading drafter %s from %s", spec.name, spec.path)
        with (
            get_spec().override(
                speculative_draft_model_path=str(spec.path),
                speculative_num_steps=spec.num_steps,
                speculative_eagle_topk=spec.topk,
            ),
            draft_tp_context(self.parallel_layout),
            draft_pp_context(),
            draft_model_build_scope(),
        ):
            worker = TpModelWorker(
                **self._worker_args,
                is_draft_worker=True,
                context_length=min(native_context(spec), math.ceil(longest * (slots_per_token or 1))),
                random_seed=self._target_worker.random_seed,
            )
        if slots_per_token is not None:
            self._slots_per_token[len(self.workers)] = slots_per_token
        self.workers.append(worker)
        return worker.model_runner

    @property
    def draft_runners(self) -> list[ModelRunner]:
        return [worker.model_runner for worker in self.workers]

    def alloc_memory_pool(
        self, memory_pool_config: Any, req_to_token_pool: Any, token_to_kv_pool_allocator: Any
    ) -> None:
        for number, worker in enumerate(self.workers):
            config, table = memory_pool_config, req_to_token_pool
            if number in self._slots_per_token:
                slots = math.ceil(config.max_total_num_tokens * self._slots_per_token[number])
                page = get_schedule().page_size
                config = replace(config, max_total_num_tokens=-(-slots // page) * page)
                table = ReqToTokenPool(
                    size=req_to_token_pool.size,
                    max_context_len=worker.model_config.context_len,
                    device=req_to_token_pool.device,
                    enable_memory_saver=False,
                )
            worker.alloc_memory_pool(config, table, token_to_kv_pool_allocator)

    def init_attention_backends(self) -> None:
        with draft_pp_context(), draft_tp_context(self.parallel_layout):
            for worker in self.workers:
                worker.init_attention_backends()

    def init_cuda_graphs(self) -> None:
        with draft_pp_context(), draft_tp_context(self.parallel_layout):
            for worker in self.workers:
                worker.init_cuda_graphs(capture_decode_cuda_graph=False)

    def draft(self) -> None:
        raise NotImplementedError("HETERO drafts through its drafters, not through this container.")

    def draft_extend(self) -> None:
        raise NotImplementedError("HETERO's drafters read committed tokens when they propose.")


def native_context(spec: DrafterSpec) -> int:
    """Tokens of context that the checkpoint was made for, as SGLang derives it.

    SGLang refuses a draft model that was made for less than the target (model_config.py, _derive_context_length),
    unless it is loaded with no more than its own.
    """
    return get_context_length(_text_config(spec))


def draft_vocab_size(spec: DrafterSpec) -> int:
    """Token ids that the checkpoint has, padding included."""
    return _text_config(spec).vocab_size


def _text_config(spec: DrafterSpec) -> Any:
    return get_hf_text_config(get_config(str(spec.path), trust_remote_code=get_model().trust_remote_code))
