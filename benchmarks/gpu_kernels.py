"""Our kernels and FlashInfer's calls on a GPU, without an engine: are they right, do they wait, which way is faster.

Used by benchmarks/gpu_run.py and tests/gpu/. Everything here takes a CUDA device.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.merge import DeviceTrees, merge_on_device
from sglang_hetero_spec.cuda.plan_arrays import Trees, fill
from sglang_hetero_spec.cuda.tree_attention import AttentionShape, FlashInferTreeAttention
from sglang_hetero_spec.cuda.tree_plan import plan_tree
from sglang_hetero_spec.drafters.tree import DraftTree, lay_out
from sglang_hetero_spec.worker.merge import Proposal, merge_trees

CUDA = torch.device("cuda")
WORKSPACE_BYTES = 256 << 20


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for the device in here raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


# Trees of several drafters.


def random_parents(rng: random.Random, batch_size: int, width: int) -> torch.Tensor:
    return torch.tensor([[-1, *(rng.randrange(node) for node in range(1, width))] for _ in range(batch_size)])


def random_proposals(rng: random.Random, roots: torch.Tensor, num_drafters: int, width: int) -> list[Proposal]:
    """Every request drafted for by one of the drafters, in turns."""
    proposals = []
    for drafter in range(num_drafters):
        places = list(range(drafter, roots.shape[0], num_drafters))
        if places:
            tokens = torch.randint(1000, (len(places), width))
            tokens[:, 0] = roots.cpu()[places]
            parents = random_parents(rng, len(places), width)
            tree = DraftTree(tokens.to(CUDA), parents.to(CUDA), depth=width - 1, num_fed=1)
            proposals.append(Proposal(places, torch.tensor(places).to(CUDA), [drafter] * len(places), tree))
    return proposals


@dataclass(frozen=True)
class MergeCase:
    roots: torch.Tensor
    lens: torch.Tensor
    proposals: list[Proposal]
    width: int

    def by_kernel(self) -> DeviceTrees:
        mask = torch.zeros(self.roots.shape[0] * self.width**2, dtype=torch.bool, device=CUDA)
        return merge_on_device(self.roots, self.lens, self.proposals, self.width, mask, full_mask=False)

    def in_torch(self) -> tuple:
        merged = merge_trees(self.roots, self.proposals, self.width)
        return merged, lay_out(merged.parents)


def merge_case(batch_size: int, num_drafters: int, width: int, seed: int = 0) -> MergeCase:
    rng = random.Random(seed)
    roots = torch.randint(1000, (batch_size,), device=CUDA)
    lens = torch.randint(1, 5000, (batch_size,), device=CUDA)
    return MergeCase(roots, lens, random_proposals(rng, roots, num_drafters, width), width)


def merge_differences(case: MergeCase) -> list[str]:
    """Names of the outputs in which kernel and PyTorch differ."""
    got, (want, layout) = case.by_kernel(), case.in_torch()
    pairs = {name: (getattr(got, name), getattr(want, name)) for name in ("tokens", "parents")}
    pairs["positions"] = (got.positions, layout.positions + case.lens.unsqueeze(1))
    pairs["next_child"] = (got.next_child, layout.next_child)
    pairs["next_sibling"] = (got.next_sibling, layout.next_sibling)
    pairs["mask"] = (got.mask, layout.ancestors.flatten())
    return [name for name, (one, other) in pairs.items() if not torch.equal(one, other)]


# Tree attention.


@dataclass(frozen=True)
class AttentionCase:
    """trees of `width` nodes behind `context` tokens, in a pool of bf16 keys and values."""

    trees: Trees
    parents: torch.Tensor
    context: int
    width: int
    q: torch.Tensor
    kv: tuple[torch.Tensor, torch.Tensor]
    shape: AttentionShape

    @property
    def batch_size(self) -> int:
        return self.trees.rows.shape[0]

    @property
    def host_lens(self) -> torch.Tensor:
        return torch.full((self.batch_size,), self.context)


def attention_case(
    batch_size: int, context: int, width: int, page_size: int, heads: tuple[int, int, int] = (32, 8, 128), seed: int = 0
) -> AttentionCase:
    """heads: of queries, of keys, and their size."""
    num_q, num_kv, dim = heads
    shape = AttentionShape(num_q, num_kv, dim, torch.bfloat16, torch.bfloat16, page_size)
    per_row = -(-(context + width) // page_size)
    pages = torch.randperm(batch_size * per_row, device=CUDA).view(batch_size, per_row)
    table = (pages.unsqueeze(2) * page_size + torch.arange(page_size, device=CUDA)).flatten(1).to(torch.int32)
    parents = random_parents(random.Random(seed), batch_size, width)
    layout = lay_out(parents.to(CUDA))
    lens = torch.full((batch_size,), context, device=CUDA)
    kv = torch.randn(2, batch_size * per_row * page_size, num_kv, dim, device=CUDA, dtype=torch.bfloat16)
    trees = Trees(
        table=table.contiguous(),
        rows=torch.arange(batch_size, device=CUDA),
        seq_lens=lens,
        positions=(layout.positions + lens.unsqueeze(1)).flatten(),
        mask=layout.ancestors.flatten(),
    )
    q = torch.randn(batch_size * width, num_q, dim, device=CUDA, dtype=torch.bfloat16)
    return AttentionCase(trees, parents, context, width, q, (kv[0], kv[1]), shape)


class TwoParts:
    name = "parts"

    def __init__(self, case: AttentionCase) -> None:
        self.case = case
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=CUDA)
        self.attention = FlashInferTreeAttention(workspace, case.shape)

    def plan(self, window_left: int = -1) -> None:
        case = self.case
        plan = plan_tree(case.host_lens, case.width, case.width - 1, case.shape.page_size, window_left)
        self.attention.plan(plan, fill(plan, case.trees))

    def run(self) -> torch.Tensor:
        return self.attention.run(self.case.q, self.case.kv, self.case.shape.head_dim**-0.5, None, None)


class WholeMask:
    """As SGLang's FlashInfer backend plans target verification: page size 1 and one mask over context and tree."""

    name = "stock"

    def __init__(self, case: AttentionCase) -> None:
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        self.case = case
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=CUDA)
        self.wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")

    def plan(self) -> None:
        case, shape = self.case, self.case.shape
        count, width, length = case.batch_size, case.width, case.context + case.width
        seen = torch.ones(count, width, length, dtype=torch.bool, device=CUDA)
        seen[:, :, case.context :] = case.trees.mask.view(count, width, width)
        self.wrapper.plan(
            torch.arange(0, (count + 1) * width, width, dtype=torch.int32, device=CUDA),
            torch.arange(0, (count + 1) * length, length, dtype=torch.int32, device=CUDA),
            case.trees.table[:, :length].flatten().contiguous(),
            torch.ones(count, dtype=torch.int32, device=CUDA),
            shape.num_qo_heads,
            shape.num_kv_heads,
            shape.head_dim,
            1,
            custom_mask=seen.flatten(),
            q_data_type=shape.q_dtype,
            kv_data_type=shape.kv_dtype,
        )

    def run(self) -> torch.Tensor:
        return self.wrapper.forward(self.case.q, self.case.kv, sm_scale=self.case.shape.head_dim**-0.5)


def plain_attention(case: AttentionCase, window_left: int = -1) -> torch.Tensor:
    """In float32 with the whole mask."""
    outputs = []
    share = case.shape.num_qo_heads // case.shape.num_kv_heads
    for request in range(case.batch_size):
        slots = case.trees.table[request, : case.context + case.width].long()
        k, v = (part[slots].float().repeat_interleave(share, dim=1) for part in case.kv)
        rows = slice(request * case.width, (request + 1) * case.width)
        mask = case.trees.mask.view(-1, case.width, case.width)[request]
        seen = torch.cat((torch.ones(case.width, case.context, dtype=torch.bool, device=CUDA), mask), dim=1)
        if window_left >= 0:
            here = case.trees.positions[rows]
            where = torch.cat((torch.arange(case.context, device=CUDA), here))
            seen &= here.unsqueeze(1) - where <= window_left
        logits = torch.einsum("qhd,khd->hqk", case.q[rows].float(), k) * case.shape.head_dim**-0.5
        weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(outputs)


# Times.


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median time of one call, host and device together, each call waited for."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


@dataclass(frozen=True)
class WayTimes:
    """Milliseconds: of making masks, indices and plans once, and of one layer's attention."""

    plan: float
    layer: float

    def step(self, num_layers: int) -> float:
        return self.plan + num_layers * self.layer


def compare(batch_size: int, context: int, width: int, page_size: int = 16) -> tuple[WayTimes, WayTimes]:
    """Two parts, and the whole mask."""
    case = attention_case(batch_size, context, width, page_size)
    found = []
    for way in (TwoParts(case), WholeMask(case)):
        plan = milliseconds(way.plan, repeats=7)
        found.append(WayTimes(plan=plan, layer=milliseconds(way.run)))
    return found[0], found[1]
