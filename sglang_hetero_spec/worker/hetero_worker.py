"""The HETERO worker: split a batch by drafter, let each propose, merge, verify with one target forward, commit."""

from __future__ import annotations

import time
import weakref
from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.runtime_context import get_device, get_spec
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.eagle_worker_common import run_eagle_verify
from sglang.srt.speculative.spec_utils import draft_tp_context, get_plan_stream, spec_stage_span

from sglang_hetero_spec.cuda.streams import Parallel
from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.registry import build_drafter, build_drafters
from sglang_hetero_spec.pool import Pool, load_pool, local_folder
from sglang_hetero_spec.pool.running import heirs, with_adapter, without_adapter
from sglang_hetero_spec.router.route import Route
from sglang_hetero_spec.worker.budget import check_target, print_budget
from sglang_hetero_spec.worker.cuda_setup import choose_streams, prepare_cuda
from sglang_hetero_spec.worker.draft_input import HeteroDraftInput
from sglang_hetero_spec.worker.draft_model import SharedState
from sglang_hetero_spec.worker.draft_sampling import DraftSampler, draft_sampler
from sglang_hetero_spec.worker.foreign import check_foreign
from sglang_hetero_spec.worker.graph_setup import capture_pool, capture_verify_widths, has_fixed_width
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.loading import DraftWorkers
from sglang_hetero_spec.worker.merge import MergedTree, Proposal, combine_proposals, mark_fed, num_nodes
from sglang_hetero_spec.worker.merged_input import merged_input
from sglang_hetero_spec.worker.metrics import build_metrics
from sglang_hetero_spec.worker.pool_models import PoolModels
from sglang_hetero_spec.worker.request_state import RequestState, state_of
from sglang_hetero_spec.worker.shares import Share, ShareRows, gather_shares
from sglang_hetero_spec.worker.step_record import StepRecord, StepSeconds
from sglang_hetero_spec.worker.stopwatch import DRAFT_FORWARDS, TimedTarget
from sglang_hetero_spec.worker.written_slots import WrittenSlots

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.tp_worker import TpModelWorker
    from sglang.srt.managers.utils import GenerationBatchResult
    from sglang.srt.model_executor.model_runner import ModelRunner
    from sglang.srt.server_args import ServerArgs

    from sglang_hetero_spec.cuda.graphs.verify_widths import VerifyWidths


@dataclass(frozen=True)
class Drafted:
    """A share with its proposal. seconds: host time of the proposal; forward_seconds: of that, inside draft models."""

    share: Share
    proposal: Proposal
    seconds: float
    forward_seconds: float


class HeteroWorker(BaseSpecWorker):
    """SGLang's speculative worker interface over a pool of drafters (base_spec_worker.py)."""

    def __init__(self, server_args: ServerArgs, gpu_id: int, nccl_port: int, target_worker: TpModelWorker) -> None:
        super().__init__()
        self.server_args = server_args
        self._target_worker = target_worker
        self._timed_target = TimedTarget(target_worker)
        self.device = get_device().device
        self._streams = choose_streams(self.device)
        check_target(target_worker.model_runner)
        if torch.device(self.device).type == "cuda":
            prepare_cuda(in_parallel=isinstance(self._streams, Parallel))
        target_folder = local_folder(server_args.tokenizer_path or server_args.model_path, server_args.revision)
        pool = load_pool(get_spec().speculative_draft_model_path, target=target_folder)
        check_foreign(pool, target_folder)
        self._draft_worker = DraftWorkers(server_args, gpu_id, nccl_port, target_worker)
        self._vocab_size = target_worker.model_runner.model_config.vocab_size
        self._models = PoolModels(pool, self._draft_worker, target_folder, self._vocab_size, self.device)
        # Numbers of adapters that were unloaded, and of the drafters that serve their requests now.
        self._heirs: dict[int, int] = {}
        self.drafters: list[Drafter] = build_drafters(self.pool.drafters, self._models)
        self.metrics = build_metrics([spec.name for spec in self.pool.drafters])
        self._verify_widths: VerifyWidths | None = None
        self._max_num_steps = max((spec.num_steps for spec in self.pool.drafters), default=0)
        self.plan_stream, self.plan_stream_ctx = get_plan_stream(self.device)
        target_worker.model_runner.spec_algorithm.draft_cell_bytes = self._models.cell_bytes

    @property
    def pool(self) -> Pool:
        return self._models.pool

    # Start-up, in SGLang's order (scheduler.py, init_model_worker).

    def alloc_memory_pool(
        self,
        memory_pool_config: Any = None,
        req_to_token_pool: Any = None,
        token_to_kv_pool_allocator: Any = None,
    ) -> None:
        super().alloc_memory_pool(memory_pool_config, req_to_token_pool, token_to_kv_pool_allocator)
        table = req_to_token_pool.req_to_token
        num_slots = token_to_kv_pool_allocator.size + token_to_kv_pool_allocator.page_size
        self.history = TokenHistory(table.shape[0], table.shape[1], self.device)
        self.written = WrittenSlots([self._models.kv_pool(spec) for spec in self.pool.drafters], num_slots, self.device)
        self._models.attach(SharedState(req_to_token=table, history=self.history, written=self.written))
        print_budget(self._target_worker.model_runner, self._models.by_name)

    def init_cuda_graphs(self) -> None:
        super().init_cuda_graphs()
        with draft_tp_context(self._draft_worker.parallel_layout):
            if torch.device(self.device).type == "cuda":
                capture_pool(self._models, isinstance(self._streams, Parallel))
                self._verify_widths = capture_verify_widths(self._target_worker.model_runner, self.pool)
            self._models.check_tokenizers()

    # Adapters that come and go between two forwards (worker.lora_hooks).

    def add_adapter(self, name: str, path: str, base: str | None = None) -> None:
        """PoolError or HeteroError, in one sentence, if it cannot be served; then nothing has changed. base: what the
        tokenizer process found (pool.running.with_adapter)."""
        before = self.pool
        self._models.pool = with_adapter(before, name, path, base)
        spec = self.pool.drafters[-1]
        try:
            self.drafters.append(build_drafter(spec, self._models))
        except Exception:
            self._models.pool = before
            raise
        self.written.add(self._models.kv_pool(spec))
        self.metrics.add_drafter(name)

    def remove_adapter(self, name: str) -> None:
        """Its requests go on with the base. PoolError if there is no such adapter."""
        after = without_adapter(self.pool, name)
        spec = self.pool.drafter(name)
        number, base = self._models.number(spec), self._models.kv_pool(spec)
        self._models.drop_adapter(spec)
        self._models.pool, self._heirs[number] = after, base
        self.drafters[number] = self.drafters[base]

    def drafter_numbers(self, route: Route) -> tuple[int, ...]:
        """Of a request's drafters. The adapter that it was tagged with may have gone since."""
        gone = heirs(self.pool)
        return tuple(dict.fromkeys(self.pool.drafter_index(gone.get(name, name)) for name in route.drafters))

    @property
    def spec_v2_attn_backends(self) -> tuple:
        return tuple(runner.attn_backend for runner in self._all_runners())

    def _all_runners(self) -> list[ModelRunner]:
        return [self._target_worker.model_runner, *self._draft_worker.draft_runners]

    def weight_update_runners(self) -> list[tuple[str, ModelRunner]]:
        """None: an update of weights over SGLang's API is for the target. A drafter that no longer fits it
        lowers the accept length, never the output's correctness."""
        return []

    # One forward of the scheduler.

    def forward_batch_generation(
        self,
        batch: ScheduleBatch,
        on_publish: Any = None,
        grammar_barrier: Any = None,
        pp_proxy_tensors: Any = None,
    ) -> GenerationBatchResult:
        if batch.forward_mode.is_extend() or batch.is_extend_in_batch:
            return self._prefill(batch, on_publish)
        return self._decode(batch, on_publish, grammar_barrier)

    def _prefill(self, batch: ScheduleBatch, on_publish: Any) -> GenerationBatchResult:
        """The target alone. Drafters read the prompt when they first propose for it, and only what they lack."""
        result = self._target_worker.forward_batch_generation(batch, capture_hidden_mode=CaptureHiddenMode.NULL)
        result.new_seq_lens = batch.seq_lens
        if on_publish is not None:
            on_publish(result.new_seq_lens)
        states = [state_of(req) for req in batch.reqs]
        self.history.record_prefill(batch, [state.serial for state in states])
        self.written.clear(batch.out_cache_loc)
        for state in states:
            state.readers.clear()
        result.next_draft_input = HeteroDraftInput(bonus_tokens=result.next_token_ids)
        return result

    def _decode(self, batch: ScheduleBatch, on_publish: Any, grammar_barrier: Any) -> GenerationBatchResult:
        start, before = time.perf_counter(), self._timed_target.watch.seconds
        rows = batch.req_pool_indices.to(torch.int64)
        roots = batch.spec_info.bonus_tokens.to(torch.int64)
        self.history.record_roots(rows, batch.seq_lens, roots)
        shares = self._split(batch.reqs)
        gathered = gather_shares(shares, rows, batch.seq_lens, roots, batch.seq_lens_cpu)
        drafted = self._propose(batch, shares, gathered)
        proposals = combine_proposals([part.proposal for part in drafted], self.pool.widest)
        width = self._verify_width(batch, proposals)
        runner = self._target_worker.model_runner
        with nullcontext() if self._verify_widths is None else self._verify_widths.at(width):
            merged, batch.spec_info = merged_input(roots, proposals, width, self._vocab_size, batch, runner)
            with spec_stage_span("verify"):
                result = self._verify(batch, merged, grammar_barrier)
        if on_publish is not None:
            on_publish(result.new_seq_lens)
        self._commit(batch, rows, merged, drafted, result)
        result.next_draft_input = HeteroDraftInput(bonus_tokens=result.next_draft_input.bonus_tokens)
        target_seconds = self._timed_target.watch.seconds - before
        # SGLang brings these to the host with its own results, sums them per request and sends them to the tokenizer
        # process (routing_hooks.report_in_meta_info).
        result.cap_lens = num_nodes(proposals, len(batch.reqs))
        result.hetero = self._record(batch.reqs, drafted, proposals, start, target_seconds)
        return result

    def _split(self, reqs: list[Req]) -> list[Share]:
        """Who is drafted for by whom, from the requests' tags alone: no device is asked."""
        groups: dict[Hashable, list[tuple[int, int]]] = {}
        for place, req in enumerate(reqs):
            state = state_of(req)
            if self._heirs:
                state.drafters = tuple(dict.fromkeys(self._heirs.get(number, number) for number in state.drafters))
            served = [number for number in state.drafters if state.may_draft and self._fits(req, self.drafters[number])]
            state.readers.intersection_update(served)
            own: list[Hashable] = []
            for number in served:
                together = self.drafters[number].together
                # Two drafters of one request propose apart.
                groups.setdefault((together, together in own), []).append((number, place))
                own.append(together)
        shares = [
            Share([place for _, place in members], [number for number, _ in members])
            for members in map(sorted, groups.values())
        ]
        return sorted(shares, key=lambda share: min(share.drafters))

    def _fits(self, req: Req, drafter: Drafter) -> bool:
        """Whether the drafter was made for a context of this length. Two steps of slack: under overlap
        scheduling the last step's tokens are not in output_ids yet."""
        if drafter.max_seq_len is None:
            return True
        longest = len(req.origin_input_ids) + len(req.output_ids) + 2 * self._most_tokens(req, drafter)
        return longest + drafter.spec.num_steps <= drafter.max_seq_len

    def _most_tokens(self, req: Req, drafter: Drafter) -> int:
        """That a step can commit."""
        return self.pool.widest if len(state_of(req).drafters) > 1 else drafter.spec.num_draft_tokens

    def _propose(self, batch: ScheduleBatch, shares: list[Share], gathered: list[ShareRows]) -> list[Drafted]:
        """Where drafters have streams of their own, all of it happens on the share's."""
        sampler = draft_sampler(batch, self._max_num_steps) if shares else None
        drafters = [self.drafters[share.drafters[0]] for share in shares]

        def draft(number: int) -> Drafted:
            share, rows = shares[number], gathered[number]
            start, before = time.perf_counter(), DRAFT_FORWARDS.seconds
            tree = drafters[number].propose(self._draft_batch(batch, share, rows, sampler))
            proposal = Proposal(share.places, rows.members, share.drafters, tree)
            return Drafted(share, proposal, time.perf_counter() - start, DRAFT_FORWARDS.seconds - before)

        with spec_stage_span("draft"), draft_tp_context(self._draft_worker.parallel_layout):
            return self._streams.run(drafters, draft)

    def _draft_batch(
        self,
        batch: ScheduleBatch,
        share: Share,
        rows: ShareRows,
        sampler: DraftSampler | None,
    ) -> DraftBatch:
        states = [state_of(batch.reqs[place]) for place in share.places]
        own = list(zip(states, share.drafters, strict=True))
        newcomers = [number for number, (state, drafter) in enumerate(own) if drafter not in state.readers]
        newcomer_lens: list[int] = []
        if newcomers:
            self._admit(batch.reqs, share, states, newcomers)
            lens = batch.seq_lens if batch.seq_lens_cpu is None else batch.seq_lens_cpu
            newcomer_lens = lens[[share.places[number] for number in newcomers]].tolist()
        in_two = [number for number, state in enumerate(states) if len(state.drafters) > 1]
        if sampler is not None:
            sampler = sampler.select(share.places)
            # Merged trees are verified without their laws, so the likeliest draft is the best one.
            sampler = sampler.likeliest(in_two) if in_two else sampler
        is_one = len(set(share.drafters)) == 1
        return DraftBatch(
            rows=rows.rows,
            seq_lens=rows.seq_lens,
            root_tokens=rows.roots,
            seq_lens_cpu=rows.seq_lens_cpu,
            newcomers=tuple(newcomers),
            newcomer_lens=tuple(newcomer_lens),
            rids=tuple(_drafting_name(batch.reqs[place]) for place in share.places),
            sampler=sampler,
            drafters=None if is_one else tuple(share.drafters),
            lag=max(state.lag for state in states),
            wants_scores=bool(in_two),
        )

    def _admit(self, reqs: list[Req], share: Share, states: list[RequestState], newcomers: list[int]) -> None:
        """Give requests to their drafter; it lets them go when SGLang has dropped them, however they ended."""
        for number in newcomers:
            state, rid, which = states[number], _drafting_name(reqs[share.places[number]]), share.drafters[number]
            state.readers.add(which)
            if which not in state.admitted:
                state.admitted.add(which)
                self.drafters[which].admit(rid)
                weakref.finalize(state, self.drafters[which].release, rid).atexit = False

    def _verify_width(self, batch: ScheduleBatch, proposals: list[Proposal]) -> int:
        """Nodes per request in this step: what the proposals need, or the next width that graphs were captured for.

        Seeded coins are numbered by the width (eagle_utils.py, `_seeded_verify_coins`): it may not depend on what else
        is in the batch.
        """
        needed = max((proposal.tree.width for proposal in proposals), default=1)
        if batch.sampling_info.sampling_seed is not None:
            return get_spec().speculative_num_draft_tokens
        if self._verify_widths is not None:
            return self._verify_widths.smallest(needed, len(batch.reqs))
        is_fixed = self.device != "cpu" and has_fixed_width(self._target_worker.model_runner)
        return get_spec().speculative_num_draft_tokens if is_fixed else needed

    def _verify(self, batch: ScheduleBatch, merged: MergedTree, grammar_barrier: Any) -> GenerationBatchResult:
        return run_eagle_verify(
            batch,
            target_worker=self._timed_target,
            req_to_token_pool=self.req_to_token_pool,
            token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
            plan_stream=self.plan_stream,
            plan_stream_ctx=self.plan_stream_ctx,
            topk=batch.spec_info.topk,
            num_draft_tokens=merged.width,
            device=self.device,
            metadata_ready_pre_pad=False,
            finalize_tree_path=True,
            grammar_barrier=grammar_barrier,
        )

    def _commit(
        self,
        batch: ScheduleBatch,
        rows: torch.Tensor,
        merged: MergedTree,
        drafted: list[Drafted],
        result: GenerationBatchResult,
    ) -> None:
        accept_tokens = result.next_token_ids.view(merged.tokens.shape).to(torch.int64)
        self.history.record_commit(rows, batch.seq_lens, accept_tokens)
        slots = batch.out_cache_loc.view(merged.tokens.shape)
        self.written.clear(slots)
        mark_fed(self.written, slots, [part.proposal for part in drafted], merged.num_fed, result.accept_lens)

    def _record(
        self, reqs: list[Req], drafted: list[Drafted], proposals: list[Proposal], start: float, target_seconds: float
    ) -> StepRecord:
        """start: of the step, by time.perf_counter(). proposals: those that were verified."""
        drafters: list[tuple[int, ...]] = [()] * len(reqs)
        draft: dict[int, float] = {}
        forward: dict[int, float] = {}
        for part in drafted:
            for place, drafter in zip(part.share.places, part.share.drafters, strict=True):
                drafters[place] += (drafter,)
                draft[drafter] = draft.get(drafter, 0.0) + part.seconds / len(part.share.places)
                forward[drafter] = forward.get(drafter, 0.0) + part.forward_seconds / len(part.share.places)
        for proposal in proposals:
            for place in proposal.places:
                in_two = len(drafters[place]) > 1
                state_of(reqs[place]).lag = proposal.tree.depth if in_two else 0
        seconds = StepSeconds(time.perf_counter() - start, draft, forward, target_seconds)
        return StepRecord(drafters, seconds)


def _drafting_name(req: Req) -> str:
    """What drafters know a request by: a client may use its rid again before the first one is let go."""
    return f"{req.rid}/{state_of(req).serial}"
