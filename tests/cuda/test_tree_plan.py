"""The plan of tree attention in two parts: its counts, request by request. What is computed with it is checked in
tests/cuda/interpreter/check_tree_attention.py."""

from __future__ import annotations

import pytest
import torch

from sglang_hetero_spec.cuda.tree_plan import TreePlan, mask_bytes, plan_tree, tree_indices

LENS = (0, 1, 15, 16, 17, 100, 1000)


def plan(page_size: int, window_left: int, width: int = 8, depth: int = 5, lens: tuple[int, ...] = LENS) -> TreePlan:
    return plan_tree(torch.tensor(lens), width, depth, page_size, window_left)


@pytest.mark.parametrize("window_left", [-1, 0, 3, 20, 5000])
@pytest.mark.parametrize("page_size", [1, 16])
def test_every_key_is_read_once_by_the_call_that_it_belongs_to(page_size: int, window_left: int) -> None:
    made = plan(page_size, window_left)
    width, depth = 8, 5
    for request, length in enumerate(LENS):
        edge, prefix = int(made.edge_start[request]), int(made.prefix_start[request])
        seen_by_some = [key for key in range(length) if window_left < 0 or length - key <= window_left]
        seen_by_all = [key for key in seen_by_some if window_left < 0 or length + depth - key <= window_left]
        read_by_all = list(range(prefix, length))
        assert list(range(edge, length)) == seen_by_some
        assert set(read_by_all) <= set(seen_by_all), "the prefix call has no mask"
        assert len(seen_by_all) - len(read_by_all) < page_size, "and reads all but the beginning of a page"
        assert not read_by_all or prefix % page_size == 0
        assert int(made.prefix.kv_lens[request]) == len(read_by_all)
        assert int(made.tree.kv_lens[request]) == len(seen_by_some) - len(read_by_all) + width
        pages = int(made.prefix.kv_indptr[request + 1] - made.prefix.kv_indptr[request])
        last = int(made.prefix.last_page_len[request])
        if read_by_all:
            assert (pages - 1) * page_size + last == len(read_by_all)
        else:
            assert (pages, last) == (0, 0)
    assert made.prefix.qo_indptr.tolist() == made.tree.qo_indptr.tolist() == [8 * n for n in range(len(LENS) + 1)]


def test_the_mask_does_not_grow_with_the_context() -> None:
    short, long = plan(16, -1, lens=(2048, 10)), plan(16, -1, lens=(32768, 9000))
    assert short.mask_indptr.tolist() == long.mask_indptr.tolist() == [0, 8, 16]
    windowed = [plan(16, 1024, lens=(length,)).mask_indptr[-1].item() for length in (2048, 32768)]
    assert windowed[0] == windowed[1] <= mask_bytes(1, 8, 5, 16, 1024)


@pytest.mark.parametrize("window_left", [-1, 7, 64])
def test_buffers_hold_whatever_comes(window_left: int) -> None:
    for length in range(200):
        made = plan(16, window_left, lens=(length, 3 * length))
        assert int(made.mask_indptr[-1]) <= mask_bytes(2, 8, 5, 16, window_left)
        assert made.tree.num_indices <= tree_indices(2, 8, 5, 16, window_left)


def test_all_arrays_are_what_flashinfer_takes() -> None:
    made = plan(16, 20)
    for call in (made.prefix, made.tree):
        arrays = (call.qo_indptr, call.kv_indptr, call.last_page_len, call.kv_lens)
        assert {array.dtype for array in arrays} == {torch.int32}
        assert {array.device.type for array in arrays} == {"cpu"}
