"""The server's command line, its counters, and whose fault it was."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from sglang_hetero_spec.build.profile.bench import Counts, EngineClock, Pass, Request, read_clock
from sglang_hetero_spec.build.profile.engine import EngineSettings, context_flag, culprit, on_cpu, server_options
from sglang_hetero_spec.build.profile.records import ProfileError, Settings

LOG = """
[2026] HETERO: loading drafter 1.a from /a
[2026] HETERO: loading drafter 2.b from /b
"""
METRICS = """
# TYPE sglang:hetero_draft_seconds_total counter
sglang:hetero_draft_seconds_total{drafter="a"} 0.5
sglang:hetero_draft_seconds_total{drafter="b"} 0.25
# TYPE sglang:hetero_verify_seconds_total counter
sglang:hetero_verify_seconds_total 2.0
# TYPE sglang:hetero_verify_forwards_total counter
sglang:hetero_verify_forwards_total 40.0
"""


def settings(*flags: str) -> EngineSettings:
    return EngineSettings("/t", longest=100, busiest=64, flags=flags, log=Path("/log"))


def test_the_users_flags_come_before_the_defaults() -> None:
    options = server_options(Path("/pool"), settings("--dtype", "bfloat16", "--mem-fraction-static=0.9"), True)
    assert options[-3:] == ("--dtype", "bfloat16", "--mem-fraction-static=0.9")
    assert options.count("--dtype") == 1 and "--mem-fraction-static" not in options
    assert ("--max-running-requests", "64") in list(pairwise(options))
    on_cuda = server_options(Path("/pool"), settings(), False)
    assert "--dtype" not in on_cuda and "--max-total-tokens" not in on_cuda and "--enable-metrics" in on_cuda


def test_what_flags_say() -> None:
    assert on_cpu(("--device", "cpu")) and on_cpu(("--device=cpu",)) and not on_cpu(("--device", "cuda"))
    assert context_flag(("--context-length", "512")) == context_flag(("--context-length=512",)) == 512
    assert context_flag(()) is None and context_flag(("--context-length",)) is None


def test_whose_fault_it_was() -> None:
    assert culprit(LOG) == "2.b"
    assert culprit(LOG + "HETERO memory, 100 tokens of KV per model:\n") is None
    assert culprit("no drafter yet") is None


def test_counters() -> None:
    clock = read_clock(METRICS)
    assert clock == EngineClock(0.75, 2.0, 40)
    assert clock.since(EngineClock(0.25, 1.5, 39)) == EngineClock(0.5, 0.5, 1)
    with pytest.raises(ProfileError, match="no counters of HETERO"):
        read_clock("")


def test_counts_of_answers() -> None:
    meta = {"completion_tokens": 9, "spec_verify_ct": 4, "spec_num_proposed_drafts": 12,
            "spec_correct_drafts_histogram": [1, 2, 0, 1]}  # fmt: skip
    one = Counts.of_answer({"meta_info": meta})
    assert one.correct_by_position(3) == (3, 1, 1)
    prefilled = Counts.of_answer({"meta_info": {"completion_tokens": 1}})
    both = Counts.sum([one, prefilled, Counts(1, 1, 3, (1,), 2)])
    assert both == Counts(3, 5, 15, (2, 2, 0, 1), 12)
    assert both.correct_by_position(4) == (3, 1, 1, 0)
    found = Pass((one,), EngineClock(0.1, 0.4, 4), 0.6).record("d", "t", Settings(3, 1, 4), 1)
    assert found is not None and found.correct_by_position == (3, 1, 1) and found.accept_length == 9 / 4
    assert Pass((prefilled,), EngineClock(0, 0, 0), 0.6).record("d", "t", Settings(3, 1, 4), 1) is None


def test_what_is_sent() -> None:
    params = {"temperature": 0.0, "max_new_tokens": 7, "ignore_eos": False}
    assert Request((1, 2), None, 7).body() == {"input_ids": [1, 2], "sampling_params": params}
    sent = Request((1,), {"drafter": "1.a"}, 7).body()["sampling_params"]
    assert sent == params | {"custom_params": {"hetero": {"drafter": "1.a"}}}
