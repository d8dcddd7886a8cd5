"""HeteroWorker at work on batches of made-up requests, with drafts and the target's forward given almost no time.

Everything of `_decode` is the worker's own: split, propose, merge, verify input, commit, counters. In the place of
drafters are some that return a chain made beforehand; in the place of SGLang's verify step (`run_eagle_verify`), one
that assigns slots and accepts chains by comparing ids. SGLang must be importable (cpu.enable()).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from sglang_hetero_spec.cuda.streams import Serial
from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
from sglang_hetero_spec.drafters.tree import DraftTree, chain
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.router.route import Route

NUM_STEPS, CONTEXT, MAX_LEN, VOCAB = 4, 200, 8192, 2048
WIDTH = NUM_STEPS + 1


class CannedDrafter(Drafter):
    """Proposes the root and the same ids behind it."""

    def propose(self, batch: DraftBatch) -> DraftTree:
        roots = batch.root_tokens.unsqueeze(1)
        return chain(torch.cat((roots, roots.new_ones(len(roots), NUM_STEPS)), dim=1), num_fed=NUM_STEPS)


def _spec(number: int) -> DrafterSpec:
    return DrafterSpec(f"d{number}", "standalone", None, "shared", NUM_STEPS, 1, WIDTH)


def _request(number: int, drafters: tuple[int, ...]) -> SimpleNamespace:
    from sglang_hetero_spec.worker.request_state import RequestState, attach_state

    req = SimpleNamespace(rid=str(number), origin_input_ids=range(CONTEXT), output_ids=[])
    attach_state(req, RequestState(Route(None, f"d{drafters[0]}", None, "request"), drafters, True))
    return req


def stub_worker(num_drafters: int, size: int, device: str = "cpu") -> Any:
    """A HeteroWorker without servers or models."""
    from sglang_hetero_spec.worker.hetero_worker import HeteroWorker
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.written_slots import WrittenSlots

    worker = object.__new__(HeteroWorker)
    specs = [_spec(number) for number in range(num_drafters)]
    pool = SimpleNamespace(drafters=specs, widest=WIDTH)
    backend = SimpleNamespace(verify_mask=None, max_context_len=MAX_LEN)
    runner = SimpleNamespace(attn_backend=backend, decode_cuda_graph_runner=None)
    table = torch.arange((size + 1) * MAX_LEN, dtype=torch.int32, device=device).view(size + 1, MAX_LEN)
    vars(worker).update(
        device=device,
        drafters=[CannedDrafter(spec) for spec in specs],
        history=TokenHistory(size + 1, MAX_LEN, device),
        written=WrittenSlots(list(range(num_drafters)), table.numel(), device),
        plan_stream=None,
        plan_stream_ctx=contextlib.nullcontext(),
        req_to_token_pool=SimpleNamespace(req_to_token=table),
        token_to_kv_pool_allocator=None,
        _models=SimpleNamespace(pool=pool),
        _draft_worker=SimpleNamespace(parallel_layout=SimpleNamespace(tp_group=None)),
        _target_worker=SimpleNamespace(model_runner=runner),
        _timed_target=SimpleNamespace(watch=SimpleNamespace(seconds=0.0)),
        _streams=Serial(),
        _heirs={},
        _verify_widths=None,
        _max_num_steps=NUM_STEPS,
        _vocab_size=VOCAB,
    )
    return worker


def stub_verify(batch: Any, *, req_to_token_pool: Any, num_draft_tokens: int, **_: Any) -> SimpleNamespace:
    """As run_eagle_verify: slots for all nodes, a path accepted in each tree; the target repeats the drafts up to a
    place that moves with the length."""
    device = batch.seq_lens.device
    places = batch.seq_lens.unsqueeze(1) + torch.arange(num_draft_tokens, device=device)
    batch.out_cache_loc = req_to_token_pool.req_to_token[batch.req_pool_indices.unsqueeze(1), places].flatten().long()
    accept_lens = (1 + batch.seq_lens % num_draft_tokens).int()
    draft = SimpleNamespace(bonus_tokens=torch.ones(len(batch.seq_lens), dtype=torch.int32, device=device))
    return SimpleNamespace(
        next_token_ids=torch.ones(len(batch.seq_lens) * num_draft_tokens, dtype=torch.int32, device=device),
        accept_lens=accept_lens,
        new_seq_lens=batch.seq_lens + accept_lens,
        next_draft_input=draft,
    )


GREEDY = SimpleNamespace(is_all_greedy=True, sampling_seed=None)


class StubSteps:
    """One verify step a call, of `size` requests that the drafters share evenly; contexts go round below MAX_LEN.

    in_two: every request has two drafters. sampling_info: as SGLang's batches have it.
    """

    def __init__(
        self, num_drafters: int, size: int, device: str = "cpu", *, in_two: bool = False, sampling_info: Any = GREEDY
    ) -> None:
        self.worker = stub_worker(num_drafters, size, device)
        self.sampling_info = sampling_info
        self.reqs = [_request(number, self._drafters(number, num_drafters, in_two)) for number in range(size)]
        self._rows = torch.arange(1, size + 1, device=device)
        self._bonus = torch.ones(size, dtype=torch.int32, device=device)
        host = [torch.full((size,), CONTEXT + step) + torch.arange(size) for step in range(100)]
        self._first_cycle = [(lens.to(device), lens) for lens in host]
        self._lengths = itertools.cycle(self._first_cycle)

    @staticmethod
    def _drafters(number: int, num_drafters: int, in_two: bool) -> tuple[int, ...]:
        first = number % num_drafters
        return (first, (first + 1) % num_drafters) if in_two else (first,)

    def keep(self, size: int) -> None:
        """Only the first of them go on."""
        self.reqs, self._rows, self._bonus = self.reqs[:size], self._rows[:size], self._bonus[:size]
        self._lengths = itertools.cycle([(lens[:size], host[:size]) for lens, host in self._first_cycle])

    def batch(self) -> SimpleNamespace:
        from sglang_hetero_spec.worker.draft_input import HeteroDraftInput

        lens, lens_cpu = next(self._lengths)
        return SimpleNamespace(
            reqs=self.reqs,
            req_pool_indices=self._rows,
            seq_lens=lens,
            seq_lens_cpu=lens_cpu,
            seq_lens_sum=int(lens_cpu.sum()),
            spec_info=HeteroDraftInput(bonus_tokens=self._bonus),
            sampling_info=self.sampling_info,
            out_cache_loc=None,
        )

    def __call__(self) -> Any:
        from sglang_hetero_spec.worker import hetero_worker

        usual, hetero_worker.run_eagle_verify = hetero_worker.run_eagle_verify, stub_verify
        try:
            return self.worker._decode(self.batch(), None, None)
        finally:
            hetero_worker.run_eagle_verify = usual


def decode_steps(num_drafters: int, size: int) -> Callable[[], Any]:
    return StubSteps(num_drafters, size)
