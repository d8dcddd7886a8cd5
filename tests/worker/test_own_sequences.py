"""Rows and pages of slots: nobody has those of another, all come back, and who is being drafted for loses none."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from sglang_hetero_spec.worker.own_sequences import OwnSequences

pytestmark = pytest.mark.usefixtures("sglang")


class Model:
    """A draft model that only notes what it is asked to read."""

    def __init__(self, num_rows: int, max_len: int, num_slots: int) -> None:
        table = torch.zeros((num_rows, max_len), dtype=torch.int32)
        self.runner = SimpleNamespace(
            page_size=1,
            token_to_kv_pool=SimpleNamespace(size=num_slots),
            req_to_token_pool=SimpleNamespace(req_to_token=table),
        )
        self.reads: list[tuple[list[int], list[int], list[int]]] = []

    def attach(self, shared: object) -> None:
        self.shared = shared

    def read_range(self, rows: torch.Tensor, starts: list[int], ends: list[int]) -> None:
        self.reads.append((rows.tolist(), starts, ends))


def sequences(num_rows: int = 5, max_len: int = 200, num_slots: int = 640) -> OwnSequences:
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.own_sequences import OwnSequences

    made = OwnSequences(Model(num_rows, max_len, num_slots))
    made.attach(TokenHistory(20, 100, "cpu"))
    return made


def slots_of(made: OwnSequences, rid: str, length: int) -> list[int]:
    row = made.row(rid)
    assert row is not None
    return made.model.runner.req_to_token_pool.req_to_token[row, :length].tolist()


@pytest.mark.parametrize("seed", range(12))
def test_no_slot_has_two_owners_and_all_come_back(seed: int) -> None:
    from sglang_hetero_spec.worker.own_sequences import PAGE

    rng = random.Random(seed)
    num_rows, max_len, num_slots = rng.choice([3, 6]), rng.choice([70, 200]), rng.choice([256, 640])
    made = sequences(num_rows, max_len, num_slots)
    num_pages = len(made._free_pages)
    assert num_pages >= num_slots // PAGE - 1
    granted: dict[str, int] = {}
    num_evicted = 0
    for _ in range(300):
        busy = {f"r{n}" for n in rng.sample(range(12), rng.randint(1, 3))}
        before = {rid: slots_of(made, rid, granted[rid]) for rid in granted if rid in busy}
        for rid in sorted(busy):
            if made.row(rid) is None and made.open(rid, busy) is None:
                continue
            length = rng.randint(1, max_len)
            if made.reserve(rid, length, busy):
                granted[rid] = max(granted.get(rid, 0), length)
            else:
                granted.setdefault(rid, 0)
        if rng.random() < 0.2:
            rid = f"r{rng.randrange(12)}"
            made.close(rid)
            before.pop(rid, None)
            granted.pop(rid, None)
            assert made.row(rid) is None
        for rid, slots in before.items():
            assert slots_of(made, rid, len(slots)) == slots, "who is drafted for keeps what it has"
        gone = [rid for rid in granted if made.row(rid) is None]
        num_evicted += len(gone)
        for rid in gone:
            assert rid not in busy
            del granted[rid]
        owned = [slot for rid, length in granted.items() for slot in slots_of(made, rid, length)]
        assert len(set(owned)) == len(owned) and all(0 < slot < num_slots for slot in owned)
        rows = [made.row(rid) for rid in granted]
        assert len(set(rows)) == len(rows) and all(0 < row < num_rows for row in rows)
    assert num_evicted > 5
    for rid in list(granted):
        made.close(rid)
    assert len(made._free_pages) == num_pages and len(made._free_rows) == num_rows - 1
    assert all(made.open(f"new{n}", ()) is not None for n in range(num_rows - 1))
    assert made.reserve("new0", max_len, ())


def test_the_one_that_was_not_drafted_for_the_longest_goes_first() -> None:
    made = sequences(num_rows=4)
    for rid in ("a", "b", "c"):
        made.open(rid, [rid])
        assert made.reserve(rid, 10, [rid])
    made.reserve("a", 20, ["a"])
    assert made.open("d", ["d"]) is not None
    assert made.row("b") is None and made.row("a") is not None and made.row("c") is not None


def test_the_busy_keep_theirs_even_if_that_leaves_too_little() -> None:
    made = sequences(num_rows=4, max_len=600, num_slots=320)
    busy = ["a", "b"]
    for rid in busy:
        made.open(rid, busy)
    assert made.reserve("a", 200, busy)
    assert not made.reserve("b", 200, busy)
    assert made.row("a") is not None and len(set(slots_of(made, "a", 200))) == 200
    made.open("c", busy)
    assert made.open("d", [*busy, "c", "d"]) is None
    made.close("a")
    made.close("never opened")
    assert made.reserve("b", 200, busy)


def test_a_table_that_is_no_whole_number_of_pages_wide() -> None:
    made = sequences(num_rows=3, max_len=75)
    made.open("a", ["a"])
    for length in (1, 33, 75):
        assert made.reserve("a", length, ["a"])
        slots = slots_of(made, "a", length)
        assert len(set(slots)) == length and 0 not in slots


def test_growing_keeps_the_slots_before() -> None:
    made = sequences()
    made.open("a", ["a"])
    made.reserve("a", 40, ["a"])
    before = slots_of(made, "a", 40)
    made.reserve("a", 10, ["a"])
    made.reserve("a", 130, ["a"])
    assert slots_of(made, "a", 40) == before and len(set(slots_of(made, "a", 130))) == 130


def test_tokens_stand_where_the_model_reads_them() -> None:
    made = sequences()
    made.write([2, 2, 3], [0, 1, 7], [11, 12, 13])
    made.write([], [], [])
    history = made.model.shared.history
    assert history.read(torch.tensor([2, 2, 3]), torch.tensor([0, 1, 7])).tolist() == [11, 12, 13]
    assert made.max_len == 200


def test_long_ranges_are_read_in_parts() -> None:
    from sglang_hetero_spec.worker.draft_model import CATCH_UP_TOKENS

    made = sequences()
    made.read_range([4, 2], [3, 0], [3 + CATCH_UP_TOKENS, 5])
    assert made.model.reads == [
        ([4], [3], [3 + CATCH_UP_TOKENS]),
        ([2], [0], [5]),
    ]


def test_the_targets_tokens_of_each_request() -> None:
    made = sequences()
    made._committed._history.tokens[7, :6] = torch.arange(70, 76)
    made._committed._history.tokens[3, :2] = torch.tensor([30, 31])
    found = made.committed(torch.tensor([7, 3, 7]), torch.tensor([4, 1, 5]), [2, 0, 6], None)
    assert found == [[72, 73, 74], [30, 31], []]
