"""Our attention backend between SGLang's calls and the two attention calls, which are PyTorch's here.

Runs under TRITON_INTERPRET=1 (tests/cuda/test_kernels.py starts it).
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from sglang_hetero_spec import cpu

cpu.enable()

from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402

from sglang_hetero_spec.cuda import attn_backend  # noqa: E402
from sglang_hetero_spec.cuda.attn_backend import TreeFlashInferBackend, TreeMetadata  # noqa: E402
from sglang_hetero_spec.cuda.plan_arrays import CallArrays  # noqa: E402
from sglang_hetero_spec.cuda.tree_attention import AttentionShape, GraphBuffers  # noqa: E402
from sglang_hetero_spec.cuda.tree_plan import TreePlan  # noqa: E402
from tests.cuda.interpreter.check_tree_attention import World, with_the_whole_mask, world  # noqa: E402
from tests.cuda.two_parts import Heads, in_two_parts  # noqa: E402

HEADS = Heads(query=4, key=2, dim=8)
WIDTH, PAGE_SIZE = 6, 16


class InPyTorch:
    """TreeAttention. Keeps to the buffers of its graph, if it has any."""

    made: ClassVar[list[InPyTorch]] = []

    def __init__(self, workspace: Any, shape: AttentionShape, buffers: GraphBuffers | None = None) -> None:
        self.buffers = buffers
        self.made.append(self)

    def plan(self, plan: TreePlan, arrays: CallArrays) -> None:
        if self.buffers is not None:
            assert plan.prefix_start.shape[0] == self.buffers.prefix_last.shape[0], "one batch size for a graph"
            for array, buffer in ((arrays.pages, self.buffers.pages), (arrays.slots, self.buffers.slots)):
                assert array.numel() <= buffer.numel()
            assert arrays.packed.numel() <= self.buffers.packed.numel()
        self._planned = plan, arrays

    def run(self, q: torch.Tensor, kv: tuple, sm_scale: float, k_scale: None, v_scale: None) -> torch.Tensor:
        assert sm_scale == HEADS.scale
        return in_two_parts(q, *kv, *self._planned, HEADS)


class Pool:
    """SGLang's KV pool as the backend sees it."""

    def __init__(self, k: torch.Tensor, v: torch.Tensor) -> None:
        self.k, self.v = k, v

    def set_kv_buffer(self, layer: Any, where: Any, k: torch.Tensor, v: torch.Tensor, *scales: None) -> None:
        self.k[where.loc], self.v[where.loc] = k, v

    def get_kv_buffer(self, layer_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.k, self.v


def backend_for(at: World, window_left: int, monkeypatch: pytest.MonkeyPatch) -> TreeFlashInferBackend:
    """As SGLang would have made it, without what needs a GPU."""
    monkeypatch.setattr(attn_backend, "FlashInferTreeAttention", InPyTorch)
    monkeypatch.setattr(InPyTorch, "made", [])
    made = TreeFlashInferBackend.__new__(TreeFlashInferBackend)
    windows = (-1,) if window_left < 0 else (window_left, -1)
    made.__dict__ |= {
        "req_to_token_pool": SimpleNamespace(req_to_token=at.trees.table),
        "token_to_kv_pool": Pool(at.k.clone(), at.v.clone()),
        "workspace_buffer": None,
        "_shape": AttentionShape(HEADS.query, HEADS.key, HEADS.dim, at.q.dtype, at.q.dtype, PAGE_SIZE),
        "_windows": windows,
        "_device_name": "cpu",
        "_width": WIDTH,
        "_tree_mask": torch.ones(at.trees.table.shape[0] * WIDTH**2, dtype=torch.bool),
        "_eager_calls": [],
        "_graph_calls": {},
        "_graph_buffers": [],
        "_graphs_in_parts": False,
        "max_context_len": 900,
        "_get_wrapper_idx": lambda layer: len(windows) > 1 and layer.sliding_window_size == -1,
        "_kv_write_scales": lambda layer: (None, None),
    }
    return made


def verify_batch(at: World, backend: TreeFlashInferBackend) -> SimpleNamespace:
    """A verify step's forward batch, its masks where the backend wants them."""
    trees = at.trees
    count = trees.seq_lens.shape[0]
    mask = backend._tree_mask
    mask[: count * WIDTH**2] = trees.mask[: count * WIDTH**2]
    tokens = trees.seq_lens.unsqueeze(1) + torch.arange(WIDTH)
    return SimpleNamespace(
        forward_mode=ForwardMode.TARGET_VERIFY,
        batch_size=count,
        req_pool_indices=trees.rows,
        seq_lens=trees.seq_lens,
        seq_lens_cpu=trees.seq_lens,
        positions=trees.positions,
        spec_info=SimpleNamespace(tree_mask=mask, draft_token_num=WIDTH),
        out_cache_loc=trees.table[trees.rows.unsqueeze(1), tokens].flatten().long(),
        kv_loc_plan=None,
        out_cache_loc_physical=True,
    )


def attend(at: World, backend: TreeFlashInferBackend, batch: SimpleNamespace, window_left: int) -> torch.Tensor:
    """One layer. The trees' keys are not in the pool yet: the layer brings them."""
    slots = batch.out_cache_loc
    k, v = at.k[slots], at.v[slots]
    backend.token_to_kv_pool.k[slots] = torch.nan
    layer = SimpleNamespace(
        layer_id=0,
        tp_q_head_num=HEADS.query,
        head_dim=HEADS.dim,
        scaling=HEADS.scale,
        k_scale_float=None,
        v_scale_float=None,
        sliding_window_size=window_left,
    )
    out = backend.forward_extend(at.q.flatten(1), k, v, layer, batch)
    return out.view(-1, HEADS.query, HEADS.dim)


@pytest.fixture(autouse=True)
def _plain_write_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    where = SimpleNamespace(for_layer=lambda batch, layer, swa_loc: SimpleNamespace(loc=batch.out_cache_loc))
    monkeypatch.setattr(attn_backend, "KVWriteLoc", where)


@pytest.mark.parametrize("window_left", [-1, 20])
def test_without_graphs(monkeypatch: pytest.MonkeyPatch, window_left: int) -> None:
    at = world(random.Random(1), [5, 40, 200], WIDTH, PAGE_SIZE, HEADS, torch.float64)
    backend = backend_for(at, window_left, monkeypatch)
    batch = verify_batch(at, backend)
    backend.init_forward_metadata(batch)
    for window in {window_left, -1}:
        assert (attend(at, backend, batch, window) - with_the_whole_mask(at, window)).abs().max() < 1e-12


@pytest.mark.parametrize("window_left", [-1, 20])
def test_in_a_graph_that_is_larger_than_the_batch(monkeypatch: pytest.MonkeyPatch, window_left: int) -> None:
    """SGLang pads a batch to a captured size with requests of one token in row 0."""
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "parts")
    monkeypatch.setattr(attn_backend.FlashInferAttnBackend, "init_cuda_graph_state", lambda *args: None)
    padded = world(random.Random(2), [40, 200, 1, 1], WIDTH, PAGE_SIZE, HEADS, torch.float64)
    backend = backend_for(padded, window_left, monkeypatch)
    backend.init_cuda_graph_state(4, 4 * WIDTH)
    batch = verify_batch(padded, backend)
    batch.spec_info.tree_mask = None
    backend.init_forward_metadata_out_graph(batch, in_capture=True)
    captured = backend.forward_metadata
    assert isinstance(captured, TreeMetadata) and captured.calls == InPyTorch.made
    batch = verify_batch(padded, backend)
    backend.init_forward_metadata_out_graph(batch)
    assert backend.forward_metadata.calls == captured.calls, "replay fills what was captured"
    for window in {window_left, -1}:
        assert (attend(padded, backend, batch, window) - with_the_whole_mask(padded, window)).abs().max() < 1e-12


def test_trees_without_masks_of_their_own_never_reach_such_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    at = world(random.Random(3), [5], WIDTH, PAGE_SIZE, HEADS, torch.float64)
    backend = backend_for(at, -1, monkeypatch)
    backend._graphs_in_parts = True
    batch = verify_batch(at, backend)
    batch.spec_info.tree_mask = None
    with pytest.raises(RuntimeError, match="attends in two parts"):
        backend.init_forward_metadata_out_graph(batch)


def test_who_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    at = world(random.Random(4), [5], WIDTH, PAGE_SIZE, HEADS, torch.float64)
    backend = backend_for(at, -1, monkeypatch)
    assert backend.tree_mask_for(1, WIDTH, 9000, in_graph=False) is None, "nothing is measured: SGLang's way"
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "parts")
    assert backend.tree_mask_for(1, WIDTH, 9, in_graph=False) is backend._tree_mask
    assert backend.tree_mask_for(1, WIDTH, 9, in_graph=True) is None, "graphs were captured before"
    assert backend.tree_mask_for(99, WIDTH, 9, in_graph=False) is None, "no room"
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "stock")
    windowed = backend_for(at, 20, monkeypatch)
    assert windowed.tree_mask_for(1, WIDTH, 9, in_graph=False) is not None, "SGLang's way is wrong with a window"


def test_everything_else_is_sglangs(monkeypatch: pytest.MonkeyPatch) -> None:
    at = world(random.Random(5), [5], WIDTH, PAGE_SIZE, HEADS, torch.float64)
    backend = backend_for(at, -1, monkeypatch)
    asked: list[str] = []
    stock = attn_backend.FlashInferAttnBackend
    for name in ("init_forward_metadata", "init_forward_metadata_out_graph", "forward_extend"):
        monkeypatch.setattr(stock, name, lambda *args, name=name: asked.append(name))
    batch = verify_batch(at, backend)
    batch.spec_info.tree_mask = None
    backend.forward_metadata = object()
    backend.init_forward_metadata(batch)
    backend.init_forward_metadata_out_graph(batch)
    batch.forward_mode = ForwardMode.DECODE
    backend._graphs_in_parts = True
    backend.init_forward_metadata_out_graph(batch)
    backend.forward_extend(None, None, None, None, batch)
    assert asked == [
        "init_forward_metadata",
        "init_forward_metadata_out_graph",
        "init_forward_metadata_out_graph",
        "forward_extend",
    ]
