"""What the server says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sglang_hetero_spec.bench import counters
from sglang_hetero_spec.bench.counters import Counters, Watch, parse_counters, read_counters, read_info
from sglang_hetero_spec.serving.remote import parse_url
from tests.bench.fake import Fake

BEFORE = """
# TYPE sglang:hetero_draft_seconds counter
sglang:hetero_draft_seconds_total{drafter="sql"} 1.5
sglang:hetero_draft_seconds_total{drafter="idle"} 2.0
# TYPE sglang:hetero_verify_seconds counter
sglang:hetero_verify_seconds_total 4.0
# TYPE sglang:hetero_host_seconds counter
sglang:hetero_host_seconds_total 0.5
# TYPE sglang:hetero_verify_forwards counter
sglang:hetero_verify_forwards_total 10.0
# TYPE sglang:hetero_route_seconds histogram
sglang:hetero_route_seconds_bucket{source="router",le="+Inf"} 3.0
sglang:hetero_route_seconds_sum{source="router"} 0.25
sglang:hetero_route_seconds_count{source="router"} 3.0
sglang:hetero_route_seconds_sum{source="request"} 0.25
sglang:hetero_route_seconds_count{source="request"} 1.0
"""
AFTER = BEFORE.replace("1.5", "2.0").replace(" 4.0", " 9.0").replace(" 0.5", " 1.5").replace("10.0", "25.0")
AFTER += 'sglang:hetero_draft_seconds_total{drafter="math"} 0.75\n'


def test_differences_over_a_block() -> None:
    found = parse_counters(AFTER).since(parse_counters(BEFORE))
    assert found == {
        "draft_seconds": 1.25,
        "drafter_seconds": {"sql": 0.5, "math": 0.75},
        "target_seconds": 4.0,  # 5 of the step beside proposing, 1 of it on the host
        "host_seconds": 1.0,
        "forwards": 15,
        "route_seconds": 0.0,
        "routes": 0,
    }
    assert parse_counters(BEFORE).routes == 4.0 and parse_counters(BEFORE).route_seconds == 0.5


def test_without_a_host_counter_nobody_guesses_the_targets_share() -> None:
    text = AFTER.replace("hetero_host_seconds", "other")
    found = parse_counters(text).since(Counters())
    assert found["host_seconds"] is None and found["target_seconds"] is None
    assert found["draft_seconds"] == 4.75


def test_what_a_server_does_not_count_is_null(fake: Fake, start_fake: Callable[..., Fake]) -> None:
    plain = start_fake(None)
    fake.metrics = False
    for server in (plain, fake):
        found = read_counters(parse_url("a", server.url))
        assert set(found.since(found).values()) == {None}


def test_info_and_memory(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    info = read_info(parse_url("a", fake.url))
    assert (info.version, info.algorithm, info.kv_bytes) == ("0.5.23", "HETERO", 1 << 28)
    monkeypatch.setattr(counters, "_POLL_SECONDS", 0.01)
    with Watch(parse_url("a", fake.url)) as watch:
        deadline = time.monotonic() + 30
        while watch.peak is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert watch.peak == 7
