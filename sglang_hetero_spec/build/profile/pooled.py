"""What a measurement owes to the machine and not to its drafter, shared by all measurements that owe it.

A verify forward of one width costs the same whoever drafted for it, and so do prefill, scheduling and text per token.
On a machine that is not quiet each measurement has a noise of its own in them, larger than what drafters differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from sglang_hetero_spec.build.profile.records import ProfileRecord


def pooled(records: Sequence[ProfileRecord]) -> tuple[ProfileRecord, ...]:
    """The same counts, in full batches. Of one task and concurrency, verify seconds per forward are the same for all of
    one width, and the other seconds per token for all; draft seconds per forward stay each drafter's own.

    Full batches: a short measurement ends with few requests in flight, by chance more or less of them.
    """
    verify = _rates(records, _width, lambda record: record.verify_seconds, lambda record: record.forwards)
    other = _rates(records, _traffic, _other_seconds, lambda record: record.completion_tokens)
    return tuple(_with_costs(record, verify[_width(record)], other[_traffic(record)]) for record in records)


def _with_costs(record: ProfileRecord, verify_per_forward: float, other_per_token: float) -> ProfileRecord:
    full = replace(record, verify_forwards=None)
    draft_seconds = record.draft_seconds / record.forwards * full.forwards
    verify_seconds = verify_per_forward * full.forwards
    seconds = draft_seconds + verify_seconds + other_per_token * record.completion_tokens
    return replace(full, draft_seconds=draft_seconds, verify_seconds=verify_seconds, seconds=seconds)


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
