"""Drafters one after another, or those of a batch at once, each on a CUDA stream of its own.

A small draft model leaves most of a GPU idle, so a batch of four drafters may take little longer than its slowest one
if their kernels run side by side. Or not: each launch still comes from one host thread, a decode step that is bound by
memory fills the GPU by itself, and every stream costs events, a cuBLAS workspace and cached blocks of its own.
`auto` is therefore serial on every device where benchmarks/gpu_run.py has not measured parallel as faster.

Why the caching allocator is safe here. A block goes back to the pool of the stream that it was allocated on when the
host drops the tensor, and is handed out again in that stream's order, whatever other streams still read. So:

- Tensors of the current stream that a side stream reads (rows, lengths, roots, the sampler, the batch's own) are made
  before the fork and kept by the caller until after the join. What the current stream does then waited for the readers.
- Tensors of a side stream that the current stream reads (the trees and what belongs to them) may be dropped any time
  after the join: that stream does nothing before the next fork, which waits for all that the current one had queued.
- Temporaries stay on one stream. Pinned memory is kept by torch until the stream that copied from it got there.

Nothing is used by two streams without a fork or a join between, so `record_stream`, which keeps blocks for longer than
needed, is called for nothing. The joins are made when a proposal fails, too.

What drafters share that they must not at once: FlashInfer's float workspace (SGLang has one for all backends; draft
models get their own, cuda.attn_backend), the memory pool of their CUDA graphs (one for each model, where
`drafts_in_parallel`), and an NCCL communicator, which takes collectives from one stream at a time in an order that all
ranks agree on: one rank only. What is made at first use and kept for all models (tables of positions, parents of
chains) is made on the current stream: a drafter's first proposal comes before the fork. Flags of written slots and KV
are one row or one pool for each model. Drafters of one model (adapters, other tree shapes) take one stream, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from sglang_hetero_spec.cuda.support import STREAMS_SWITCH, switch
from sglang_hetero_spec.errors import HeteroError

SERIAL, PARALLEL = "serial", "parallel"
# torch.cuda.get_device_name() of devices where parallel streams were measured as faster. No GPU was lent when this was
# written; benchmarks/gpu_run.py says what to put here.
PARALLEL_IS_FASTER: frozenset[str] = frozenset()
# What cuBLAS takes for each stream that it works on, on Hopper (torch, CUDABlas: 4096 KiB times 8).
CUBLAS_BYTES = 32 << 20
# FlashInfer's, as SGLang's backend asks for it for Qwen's models; less for others (flashinfer_backend.py).
WORKSPACE_BYTES = 512 << 20

T = TypeVar("T")


def drafts_in_parallel(device: torch.device | str, why_not: str | None = None) -> bool:
    """Whether drafters get streams, workspaces and graph pools of their own on this device.

    why_not: what speaks against it in this server, in one clause. HeteroError if it was asked for and cannot be.
    """
    asked, device = switch(STREAMS_SWITCH), torch.device(device)
    if device.type != "cuda":
        why_not = f"the drafters are on the device {device.type}"
    if asked == PARALLEL and why_not is not None:
        raise HeteroError(f"{STREAMS_SWITCH} is parallel, but {why_not}; leave it unset.")
    if asked == "auto" and why_not is None and PARALLEL_IS_FASTER:
        return torch.cuda.get_device_name(device) in PARALLEL_IS_FASTER
    return asked == PARALLEL


def why_not_parallel(tp_size: int, attention_backends: Sequence[str]) -> str | None:
    """attention_backends: of draft models, by SGLang's names. In one clause, or None."""
    if tp_size > 1:
        return f"with --tp-size {tp_size} collectives of two drafters would meet on one communicator"
    other = next((name for name in attention_backends if name != "flashinfer"), None)
    if other is not None:
        return f"the attention backend of draft models is {other}, whose buffers may be shared between models"
    return None


def refuse_streams(cfg: Any) -> None:
    """HeteroError where parallel streams were asked for, and the server's arguments say that they cannot be. cfg:
    SGLang's resolving view, before a backend was chosen for whoever named none."""
    if switch(STREAMS_SWITCH) == PARALLEL:
        own = (cfg.speculative_draft_attention_backend,)
        all_of_them = (cfg.prefill_attention_backend, cfg.decode_attention_backend, cfg.attention_backend)
        named = [name for name in (own if own[0] else all_of_them) if name is not None]
        drafts_in_parallel(cfg.device or "cuda", why_not_parallel(cfg.tp_size, named))


def stream_bytes(cfg: Any) -> int:
    """GPU memory that a draft model takes for a stream of its own, logits not counted; 0 where drafters take turns.

    cfg: SGLang's resolving view. What is refused is refused later.
    """
    from sglang.srt.environ import envs

    try:
        if not drafts_in_parallel(cfg.device, None if cfg.tp_size == 1 else "there are several ranks"):
            return 0
    except HeteroError:
        return 0
    return max(envs.SGLANG_FLASHINFER_WORKSPACE_SIZE.get(), WORKSPACE_BYTES) + CUBLAS_BYTES


class Proposing(Protocol):
    """Of drafters.base.Drafter."""

    @property
    def together(self) -> Hashable: ...

    @property
    def lane(self) -> Hashable | None: ...

    @property
    def waits(self) -> bool: ...


@dataclass(frozen=True)
class Turns:
    """Numbers of shares in the order of their launch. first: before the fork, on the current stream; then: behind it,
    each with its stream, 0 the current one."""

    first: tuple[int, ...]
    then: tuple[tuple[int, int], ...]

    @property
    def num_sides(self) -> int:
        return max((stream for _, stream in self.then), default=0)


def plan_turns(drafters: Sequence[Proposing], is_known: Callable[[Proposing], bool]) -> Turns:
    """drafters: of each share.

    The current stream is the first model's. Where a share without a model waits it is not: it waits for what the last
    step committed, behind which no drafting must lie. Shares that make the host wait are launched last.
    """
    first = tuple(n for n, drafter in enumerate(drafters) if drafter.lane is not None and not is_known(drafter))
    rest = [number for number in range(len(drafters)) if number not in first]
    lanes = list(dict.fromkeys(drafters[n].lane for n in rest if drafters[n].lane is not None))
    on_host = any(drafters[number].lane is None and drafters[number].waits for number in rest)
    streams = {None: 0} | {lane: number for number, lane in enumerate(lanes, 1 if on_host else 0)}
    then = [(number, streams[drafters[number].lane]) for number in rest]
    return Turns(first, tuple(sorted(then, key=lambda turn: drafters[turn[0]].waits)))


class Serial:
    """Every share in its order, on the current stream."""

    def run(self, drafters: Sequence[Proposing], draft: Callable[[int], T]) -> list[T]:
        return [draft(number) for number in range(len(drafters))]


class Parallel:
    """device_module: torch.cuda. Streams are made when a batch first needs so many, and kept."""

    def __init__(self, device_module: Any) -> None:
        self._module = device_module
        self._sides: list[Any] = []
        self._known: set[Hashable] = set()

    def run(self, drafters: Sequence[Proposing], draft: Callable[[int], T]) -> list[T]:
        """What `draft` returns for the number of each share, in the shares' order."""
        turns = plan_turns(drafters, lambda drafter: drafter.together in self._known)
        done = {number: draft(number) for number in turns.first}
        with self._forked(turns.num_sides) as streams:
            for number, stream in turns.then:
                if stream == 0:
                    done[number] = draft(number)
                else:
                    with self._module.stream(streams[stream - 1]):
                        done[number] = draft(number)
        self._known.update(drafter.together for drafter in drafters)
        return [done[number] for number in range(len(drafters))]

    @contextmanager
    def _forked(self, number: int) -> Iterator[list[Any]]:
        """Side streams that wait for what the current one has queued until now; it waits for them at the end. All forks
        come before any drafting: a later one would wait for the current stream's own share."""
        while len(self._sides) < number:
            self._sides.append(self._module.Stream())
        current, sides = self._module.current_stream(), self._sides[:number]
        for side in sides:
            side.wait_stream(current)
        try:
            yield sides
        finally:
            for side in sides:
                current.wait_stream(side)


def draft_streams(device: torch.device | str, why_not: str | None) -> Serial | Parallel:
    """As the switch and `why_not` have it. HeteroError as for `drafts_in_parallel`."""
    if not drafts_in_parallel(device, why_not):
        return Serial()
    return Parallel(torch.get_device_module(device))
