"""From counts to figures: sums before division, token ids compared one by one."""

from __future__ import annotations

import json

import pytest

from sglang_hetero_spec.demo.summary import (
    Results,
    as_dict,
    find_differences,
    first_difference,
    tally,
)
from tests.demo_run.canned import CODE, answer, hetero_pass, none_pass, passes


def test_figures_of_a_task() -> None:
    counts = Results(passes()).tally("hetero", 4, "code")
    assert (counts.requests, counts.completion_tokens, counts.request_seconds) == (2, 24, 3.0)
    assert (counts.accept_length, counts.accept_rate, counts.request_speed) == (3.0, 0.5, 8.0)


def test_sums_come_before_division() -> None:
    """Equal weight for every token, not for every request: 30 tokens in 10 s, not (10/1 + 20/9) / 2."""
    short = answer(0, "x", tuple(range(10)), 1.0, verify_steps=10)
    long = answer(1, "x", tuple(range(20)), 9.0, verify_steps=5)
    rows = [short, long]
    assert tally(rows).request_speed == 3.0
    assert tally(rows).accept_length == 2.0


def test_speed_of_the_server_and_its_spread() -> None:
    speed = Results(passes()).speed("hetero", 4)
    assert speed is not None
    assert (speed.overall, speed.slowest, speed.fastest) == (pytest.approx(10.0), pytest.approx(20 / 3), 20.0)


def test_ratios_pair_passes_of_one_number() -> None:
    ratio = Results(passes()).ratio("hetero", "standalone", 4)
    assert ratio is not None
    assert ratio.overall == pytest.approx((40 / 4) / (40 / 5))
    assert (ratio.smallest, ratio.largest) == (pytest.approx(1.0), pytest.approx(2.0))


def test_what_was_not_measured_has_no_figures() -> None:
    results = Results(passes())
    assert results.ratio("hetero_general", "standalone", 4) is None
    assert results.speed("hetero", 16) is None
    assert results.tally("none", 4).accept_length is None and results.tally("none", 4).accept_rate is None


def test_routes_and_confidence_are_counted_once_per_prompt() -> None:
    results = Results(passes())
    assert dict(results.routes(4)) == {"sql": 1, "general": 1}
    assert results.confidence(4, "sql") == 0.9


@pytest.mark.parametrize(
    ("wanted", "got", "place"),
    [
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 9, 3), 1),
        ((1, 2), (1, 2, 3), 2),
        ((1, 2, 3), (1, 2), 2),
        ((), (1,), 0),
    ],
)
def test_first_difference(wanted: tuple[int, ...], got: tuple[int, ...], place: int | None) -> None:
    assert first_difference(wanted, got) == place


def test_a_difference_in_any_pass_is_found_once() -> None:
    other = (*CODE[:5], 7, *CODE[6:])
    found = find_differences([none_pass(1.0), hetero_pass(1.0), hetero_pass(1.0, other), hetero_pass(1.0, other)])
    assert [(d.arm, d.concurrency, d.prompt, d.task, d.place) for d in found] == [("hetero", 4, 1, "code", 5)]
    results = Results([none_pass(1.0), hetero_pass(1.0, other)], found)
    assert len(results.differing(4, "code")) == 1 and results.differing(4, "sql") == []
    assert as_dict(results)["identical"] is False


def test_the_json_has_raw_counts_and_can_be_written() -> None:
    found = json.loads(json.dumps(as_dict(Results(passes())), allow_nan=False))
    first = found["passes"][0]
    assert (first["arm"], first["wall_seconds"], first["total"]["completion_tokens"]) == ("none", 4.0, 20)
    figures = found["figures"][0]
    assert figures["speed_ratios"]["hetero/none"]["overall"] == pytest.approx(2.5)
    assert figures["tasks"]["sql"]["hetero"]["accept_length"] == 4.0
    assert figures["tasks"]["code"]["standalone"]["accept_rate"] == 0.25
    assert figures["tasks"]["code"]["routes"] == {"general": 1}
    assert found["identical"] is True
