"""FlashInfer's compiled modules in PyTorch: what its Python wrappers plan with and run. The wrappers stay FlashInfer's.

Everything that a kernel would take on trust is checked: what the host planned against what is on the device, indices
against the pool, masks against their buffers. Signatures are those of flashinfer 0.7.2 (prefill.py, decode.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from tests.cuda.two_parts import Heads, attend

NON_CAUSAL, CAUSAL, CUSTOM = 0, 1, 2
NHD = 0


@dataclass
class Plan:
    """What a plan call was told on the host. window: compiled in; float_bytes: of the shared workspace."""

    qo_indptr: list[int]
    kv_indptr: list[int]
    kv_lens: list[int]
    num_qo_heads: int
    num_kv_heads: int
    page_size: int
    head_dim: int
    window_left: int
    in_graph: bool


@dataclass
class Log:
    """Of all modules. plans: the pinned buffer that each plan was written to, as long as nobody has waited for the
    device; see `overwritten`."""

    kinds: list[str] = field(default_factory=list)
    plans: list[int] = field(default_factory=list)

    @property
    def overwritten(self) -> int:
        """Plans that were written over others which the device may still have had to fetch."""
        return len(self.plans) - len(set(self.plans))

    def clear(self) -> None:
        self.kinds.clear()
        self.plans.clear()


LOG = Log()


def host_list(tensor: torch.Tensor) -> list[int]:
    assert tensor.device.type == "cpu" and tensor.dtype == torch.int32 and tensor.dim() == 1, tensor
    return tensor.tolist()


def ascending(indptr: list[int]) -> bool:
    return indptr[0] == 0 and all(a <= b for a, b in itertools.pairwise(indptr))


def plan(kind: str, pinned: torch.Tensor, what: Plan) -> Plan:
    assert ascending(what.qo_indptr) and ascending(what.kv_indptr), what
    assert len(what.qo_indptr) == len(what.kv_indptr) == len(what.kv_lens) + 1, what
    for number, pages in enumerate(_lens(what.kv_indptr)):
        # FlashInfer counts the last page where there is none (utils.py, get_seq_lens); its kernels see none.
        what.kv_lens[number] = what.kv_lens[number] if pages else 0
        assert pages == -(-what.kv_lens[number] // what.page_size), what
    assert what.num_qo_heads % what.num_kv_heads == 0
    LOG.kinds.append(kind)
    LOG.plans.append(pinned.data_ptr())
    return what


def _lens(indptr: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise(indptr)]


def prefill_plan(
    float_workspace: torch.Tensor,
    int_workspace: torch.Tensor,
    pinned: torch.Tensor,
    qo_indptr: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    total_rows: int,
    batch_size: int,
    num_qo_heads: int,
    num_kv_heads: int,
    page_size: int,
    in_graph: bool,
    head_dim_qk: int,
    head_dim_vo: int,
    causal: bool,
    window_left: int,
    fixed_split_size: int,
    disable_split_kv: bool,
    num_colocated_ctas: int,
    uniform_q_len: int,
) -> Plan:
    assert float_workspace.dtype == int_workspace.dtype == torch.uint8 and head_dim_qk == head_dim_vo
    queries = host_list(qo_indptr)
    assert batch_size == len(queries) - 1 and total_rows >= queries[-1]
    lens = host_list(kv_lens)
    what = Plan(
        queries,
        host_list(kv_indptr),
        lens,
        num_qo_heads,
        num_kv_heads,
        page_size,
        head_dim_qk,
        window_left,
        in_graph,
    )
    return plan("prefill", pinned, what)


def decode_plan(
    float_workspace: torch.Tensor,
    int_workspace: torch.Tensor,
    pinned: torch.Tensor,
    indptr: torch.Tensor,
    batch_size: int,
    num_qo_heads: int,
    num_kv_heads: int,
    page_size: int,
    in_graph: bool,
    window_left: int,
    logits_soft_cap: float,
    head_dim_qk: int,
    head_dim_vo: int,
    q_like: torch.Tensor,
    kv_like: torch.Tensor,
) -> Plan:
    pages = host_list(indptr)
    assert page_size == 1 and len(pages) == batch_size + 1, "SGLang reads single slots"
    assert all(_lens(pages)), "a request without keys: the decode kernel would divide by zero"
    queries = list(range(batch_size + 1))
    what = Plan(queries, pages, _lens(pages), num_qo_heads, num_kv_heads, page_size, head_dim_qk, window_left, in_graph)
    return plan("decode", pinned, what)


def seen_by(mode: int, q_len: int, kv_len: int, window_left: int, mask: torch.Tensor | None) -> torch.Tensor:
    """[q_len, kv_len] bool. The last query is the last key (variants.cuh, prefill.cuh)."""
    rows = torch.arange(q_len).unsqueeze(1) + (kv_len - q_len)
    columns = torch.arange(kv_len).unsqueeze(0)
    seen = torch.ones(q_len, kv_len, dtype=torch.bool)
    if mode == CAUSAL:
        seen &= columns <= rows
    elif mode == CUSTOM:
        assert mask is not None
        seen &= mask
    if window_left >= 0:
        seen &= columns + window_left >= rows
    return seen


def unpacked(packed: torch.Tensor, first: int, q_len: int, kv_len: int) -> torch.Tensor:
    number = torch.arange(q_len * kv_len)
    byte = packed[first + number // 8].long()
    return ((byte >> (number % 8)) & 1).bool().view(q_len, kv_len)


def same_on_device(planned: list[int], buffer: torch.Tensor, what: str) -> None:
    assert buffer.dtype == torch.int32, f"{what} is {buffer.dtype}"
    found = buffer.tolist()
    assert found == planned, f"{what}: {found} on the device, {planned} planned on the host"


def run(
    info: Plan,
    q: torch.Tensor,
    keys: list[torch.Tensor],
    values: list[torch.Tensor],
    out: torch.Tensor,
    lse: torch.Tensor | None,
    mode: int,
    window_left: int,
    masks: list[torch.Tensor | None],
    soft_cap: float,
    sm_scale: float,
) -> None:
    assert q.shape == (info.qo_indptr[-1], info.num_qo_heads, info.head_dim), (q.shape, info)
    assert q.is_contiguous() and out.shape == q.shape and soft_cap == 0.0
    heads = Heads(info.num_qo_heads, info.num_kv_heads, info.head_dim)
    # A window that the plan was not told of is not compiled in: it skips whole tiles at most (variants.cuh).
    window_left = window_left if info.window_left >= 0 else -1
    for number, (k, v, mask) in enumerate(zip(keys, values, masks, strict=True)):
        rows = slice(info.qo_indptr[number], info.qo_indptr[number + 1])
        seen = seen_by(mode, rows.stop - rows.start, k.shape[0], window_left, mask)
        # `attend` scales by the head's size alone.
        found, sums = attend(q[rows].float() * (sm_scale / heads.scale), k.float(), v.float(), seen, heads)
        out[rows] = found.to(out.dtype)
        if lse is not None:
            lse[rows] = sums


def masks_of(
    info: Plan, mode: int, packed: torch.Tensor | None, indptr: torch.Tensor | None
) -> list[torch.Tensor | None]:
    q_lens = _lens(info.qo_indptr)
    if mode != CUSTOM:
        return [None] * len(q_lens)
    assert packed is not None and packed.dtype == torch.uint8 and indptr is not None and indptr.dtype == torch.int32
    firsts = indptr.tolist()
    assert ascending(firsts) and len(firsts) == len(q_lens) + 1, firsts
    sizes = [-(-q_len * kv_len // 8) for q_len, kv_len in zip(q_lens, info.kv_lens, strict=True)]
    assert _lens(firsts) == sizes, f"masks of {_lens(firsts)} bytes, {sizes} are read"
    assert firsts[-1] <= packed.numel()
    return [
        unpacked(packed, first, q_len, kv_len)
        for first, q_len, kv_len in zip(firsts[:-1], q_lens, info.kv_lens, strict=True)
    ]


def pages_of(info: Plan, pool: torch.Tensor, indices: torch.Tensor, last_page_len: torch.Tensor) -> list[torch.Tensor]:
    """The keys (or values) of each request, out of pages [pages, page_size, heads, d]."""
    assert indices.dtype == torch.int32 and last_page_len.dtype == torch.int32
    assert pool.dim() == 4 and pool.shape[1:] == (info.page_size, info.num_kv_heads, info.head_dim), pool.shape
    assert indices.numel() >= info.kv_indptr[-1], "fewer indices than planned"
    used = indices[: info.kv_indptr[-1]]
    assert used.numel() == 0 or (int(used.min()) >= 0 and int(used.max()) < pool.shape[0]), "a page outside the pool"
    found = []
    for number, length in enumerate(info.kv_lens):
        pages = used[info.kv_indptr[number] : info.kv_indptr[number + 1]].long()
        if pages.numel():
            assert length == (pages.numel() - 1) * info.page_size + int(last_page_len[number])
        found.append(pool[pages].flatten(0, 1)[:length])
    return found


def paged_run(*args: Any) -> None:
    (_, _, info, q, k, v, qo_indptr, kv_indptr, indices, last_page_len, out, lse) = args[:12]
    mode, layout, window_left, _, packed, mask_indptr, _, prefix_len, _, _, soft_cap, sm_scale = args[12:24]
    assert isinstance(info, Plan) and layout == NHD and prefix_len is None
    same_on_device(info.qo_indptr, qo_indptr, "qo_indptr")
    same_on_device(info.kv_indptr, kv_indptr, "kv_indptr")
    keys, values = (pages_of(info, pool, indices, last_page_len) for pool in (k, v))
    run(
        info,
        q,
        keys,
        values,
        out,
        lse,
        mode,
        window_left,
        masks_of(info, mode, packed, mask_indptr),
        soft_cap,
        sm_scale,
    )


def ragged_run(*args: Any) -> None:
    (_, _, info, q, k, v, qo_indptr, kv_indptr, out, lse, mode, layout, window_left) = args[:13]
    packed, mask_indptr, soft_cap, sm_scale = args[14], args[15], args[20], args[21]
    assert isinstance(info, Plan) and layout == NHD and mode != CUSTOM and packed is mask_indptr is None
    same_on_device(info.qo_indptr, qo_indptr, "qo_indptr")
    same_on_device(info.kv_indptr, kv_indptr, "kv_indptr")
    assert k.shape == v.shape == (info.kv_indptr[-1], info.num_kv_heads, info.head_dim), (k.shape, info)
    bounds = list(zip(info.kv_indptr, info.kv_indptr[1:], strict=False))
    keys, values = ([each[a:b] for a, b in bounds] for each in (k, v))
    run(info, q, keys, values, out, lse, mode, window_left, [None] * len(keys), soft_cap, sm_scale)


def decode_run(*args: Any) -> None:
    (_, _, info, q, k, v, kv_indptr, indices, last_page_len, out, lse, layout, window_left) = args[:13]
    soft_cap, sm_scale = args[15], args[16]
    assert isinstance(info, Plan) and layout == NHD
    same_on_device(info.kv_indptr, kv_indptr, "kv_indptr")
    keys, values = (pages_of(info, pool, indices, last_page_len) for pool in (k, v))
    run(info, q, keys, values, out, lse, NON_CAUSAL, window_left, [None] * len(keys), soft_cap, sm_scale)


def merge_state(
    v_a: torch.Tensor, s_a: torch.Tensor, v_b: torch.Tensor, s_b: torch.Tensor, v: torch.Tensor, s: torch.Tensor
) -> None:
    """cascade.cuh: log-sum-exps are of base 2; two states that saw nothing merge to 0."""
    assert v_a.shape == v_b.shape and s_a.shape == s_b.shape == v_a.shape[:2] and s_a.dtype == torch.float32
    most = torch.maximum(s_a, s_b)
    w_a, w_b = torch.exp2(s_a - most).nan_to_num(0.0), torch.exp2(s_b - most).nan_to_num(0.0)
    total = w_a + w_b
    assert bool((total > 0).all()), "a query that sees nothing at all"
    v.copy_(v_a * (w_a / total).unsqueeze(-1) + v_b * (w_b / total).unsqueeze(-1))
    s.copy_(torch.log2(total) + most)


def segment_packbits(
    bits: torch.Tensor, indptr: torch.Tensor, packed_indptr: torch.Tensor, order: str, out: torch.Tensor
) -> None:
    assert bits.dtype in (torch.bool, torch.uint8) and order == "little" and bits.numel() >= int(indptr[-1])
    starts, ends, firsts = indptr[:-1].tolist(), indptr[1:].tolist(), packed_indptr.tolist()
    for start, end, first in zip(starts, ends, firsts, strict=False):
        padded = torch.nn.functional.pad(bits[start:end].to(torch.uint8), (0, -(end - start) % 8)).view(-1, 8)
        out[first : first + padded.shape[0]] = (padded << torch.arange(8, dtype=torch.uint8)).sum(-1).to(torch.uint8)


prefill_module = SimpleNamespace(plan=prefill_plan, paged_run=paged_run, ragged_run=ragged_run)
decode_module = SimpleNamespace(plan=decode_plan, run=decode_run)
