"""Which way of verification is taken: what was measured, what was asked for, and SGLang's own where neither."""

from __future__ import annotations

import pytest

from sglang_hetero_spec.cuda.crossover import MEASURED, PARTS, STOCK, Crossover, choose
from sglang_hetero_spec.errors import HeteroError

GPU = "NVIDIA Test"
ROWS = tuple(
    Crossover(GPU, batch_size, width, context)
    for batch_size, width, context in [(1, 8, 8192), (1, 64, 2048), (32, 8, 4096), (32, 64, None)]
)


@pytest.mark.parametrize(
    ("batch_sizes", "width", "context", "way"),
    [
        ((1,), 8, 8192, PARTS),
        ((1,), 8, 8191, STOCK),
        ((32,), 8, 4096, PARTS),
        ((16,), 8, 4096, STOCK),  # between 1 and 32 the one that wants more decides
        ((16,), 8, 8192, PARTS),
        ((1,), 16, 8192, PARTS),
        ((1,), 128, 99999, STOCK),  # wider than anything measured
        ((64,), 8, 99999, STOCK),  # more requests than anything measured
        ((32,), 64, 99999, STOCK),  # measured, and never faster
        ((1, 32), 8, 8192, PARTS),
        ((1, 32), 8, 4096, STOCK),  # a graph ladder needs all of its sizes
        ((), 8, 99999, STOCK),
    ],
)
def test_what_was_measured_decides(batch_sizes: tuple[int, ...], width: int, context: int, way: str) -> None:
    assert choose(GPU, batch_sizes, width, context, ROWS) == way


def test_what_is_not_measured_is_verified_in_sglangs_way() -> None:
    assert choose("another GPU", (1,), 8, 99999, ROWS) == STOCK
    assert choose(GPU, (1,), 8, 99999, ()) == STOCK


def test_the_table_is_well_formed() -> None:
    keys = [(row.device, row.batch_size, row.width) for row in MEASURED]
    assert len(keys) == len(set(keys))


def test_a_switch_forces_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "parts")
    assert choose("another GPU", (1,), 8, 1, ROWS) == PARTS
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "stock")
    assert choose(GPU, (1,), 8, 99999, ROWS) == STOCK
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", "cascade")
    with pytest.raises(HeteroError, match=r"SGLANG_HETERO_SPEC_VERIFY is cascade; set it to auto, stock or parts\."):
        choose(GPU, (1,), 8, 1, ROWS)
