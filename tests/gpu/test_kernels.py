"""The merge kernel and attention in two parts on the device itself: right, and waiting for nothing."""

from __future__ import annotations

import pytest

from benchmarks import gpu_kernels as gk

# bf16 keeps 8 bits: errors of a sum of some hundred weighted values.
TOLERANCE = 0.02


@pytest.mark.parametrize("width", [1, 2, 9, 33, 64])
@pytest.mark.parametrize(("batch_size", "num_drafters"), [(1, 1), (5, 2), (32, 4)])
def test_the_merge_kernel_is_pytorch(batch_size: int, num_drafters: int, width: int) -> None:
    assert gk.merge_differences(gk.merge_case(batch_size, num_drafters, width)) == []


def test_merging_waits_for_nothing() -> None:
    case = gk.merge_case(32, 4, 8)
    case.by_kernel()
    with gk.no_waiting():
        case.by_kernel()


@pytest.mark.parametrize("heads", [(8, 8, 64), (32, 8, 128), (28, 4, 128)], ids=str)
@pytest.mark.parametrize("window_left", [-1, 3, 300])
@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize(("context", "width"), [(1, 1), (17, 8), (1000, 64), (5000, 16)])
def test_two_parts_are_the_whole(
    context: int, width: int, page_size: int, window_left: int, heads: tuple[int, int, int]
) -> None:
    case = gk.attention_case(3, context, width, page_size, heads)
    way = gk.TwoParts(case)
    way.plan(window_left)
    assert (way.run().float() - gk.plain_attention(case, window_left)).abs().max() < TOLERANCE


def test_both_ways_agree_on_a_long_context() -> None:
    case = gk.attention_case(2, 32768, 16, 16)
    parts, stock = gk.TwoParts(case), gk.WholeMask(case)
    parts.plan()
    stock.plan()
    assert (parts.run().float() - stock.run().float()).abs().max() < TOLERANCE


def test_planning_and_running_wait_for_nothing() -> None:
    way = gk.TwoParts(gk.attention_case(8, 2000, 8, 16))
    way.plan()
    way.run()
    with gk.no_waiting():
        way.plan()
        way.run()
