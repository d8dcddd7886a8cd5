"""What a measurement owes to the machine and not to its drafter, shared by all measurements that owe it.

A verify forward of one width costs the same whoever drafted for it, and so do prefill, scheduling and text per token.
On a machine that is not quiet each measurement has a noise of its own in them, larger than what drafters differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from sglang_hetero_spec.build.profile.records import ProfileRecord


def pooled(records: Sequence[ProfileRecord]) -> tuple[ProfileRecord, ...]:
    """The same counts and draft seconds; of one task and concurrency, verify seconds per forward are the same for
    all of one width, and the other seconds per token for all. Their sums stay what they were."""
    verify = _rates(records, _width, lambda record: record.verify_seconds, lambda record: record.forwards)
    other = _rates(records, _traffic, _other_seconds, lambda record: record.completion_tokens)
    return tuple(
        _with_seconds(record, verify[_width(record)] * record.forwards, other[_traffic(record)]) for record in records
    )


def _with_seconds(record: ProfileRecord, verify_seconds: float, other_per_token: float) -> ProfileRecord:
    seconds = record.draft_seconds + verify_seconds + other_per_token * record.completion_tokens
    return replace(record, verify_seconds=verify_seconds, seconds=seconds)


def _rates(
    records: Sequence[ProfileRecord],
    group: Callable[[ProfileRecord], Hashable],
    seconds: Callable[[ProfileRecord], float],
    count: Callable[[ProfileRecord], float],
) -> dict[Hashable, float]:
    sums: dict[Hashable, list[float]] = {}
    for record in records:
        row = sums.setdefault(group(record), [0.0, 0.0])
        row[0] += seconds(record)
        row[1] += count(record)
    return {key: total / number for key, (total, number) in sums.items()}


def _traffic(record: ProfileRecord) -> Hashable:
    return record.task, record.concurrency


def _width(record: ProfileRecord) -> Hashable:
    return record.task, record.concurrency, record.num_draft_tokens


def _other_seconds(record: ProfileRecord) -> float:
    return max(0.0, record.seconds - record.draft_seconds - record.verify_seconds)
