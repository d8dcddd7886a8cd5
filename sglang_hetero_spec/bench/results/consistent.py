"""Do the records agree with themselves? Figures edited by hand seldom do."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.results.run_files import Run

_SLACK = 0.25  # seconds: a block and its requests are timed by different threads


def contradictions(run: Run) -> list[str]:
    """One phrase for each record that cannot be as it says."""
    walls = {(one.arm, one.setting, one.repetition): one for one in run.blocks}
    found = []
    for row in run.requests:
        words = _of_request(row) or _of_place(row, walls.get((row.arm, row.setting, row.repetition)))
        if words:
            found.append(f"{row.arm}, {row.setting}, repetition {row.repetition}, prompt {row.prompt}: {words}")
    return found


def _of_request(row: RequestRecord) -> str:
    if row.output_ids and len(row.output_ids) != row.completion_tokens:
        return f"{row.completion_tokens} completion tokens and {len(row.output_ids)} token ids"
    if row.ttft is not None and row.ttft > row.seconds:
        return "its first token came after its last byte"
    if _falls(at for at, _ in row.chunks) or _falls(tokens for _, tokens in row.chunks):
        return "its chunks are not in order"
    if row.chunks and row.chunks[-1][1] > row.completion_tokens:
        return "its chunks hold more tokens than the answer"
    if row.proposed is not None and row.correct is not None and row.correct > row.proposed:
        return "more correct drafts than proposed ones"
    return _of_histogram(row)


def _of_histogram(row: RequestRecord) -> str:
    if row.histogram is None:
        return ""
    if row.verify_steps is not None and sum(row.histogram) != row.verify_steps:
        return f"{row.verify_steps} verify steps and {sum(row.histogram)} in its histogram"
    right = sum(place * steps for place, steps in enumerate(row.histogram))
    if row.correct is not None and right != row.correct:
        return f"{row.correct} correct drafts and {right} in its histogram"
    return ""


def _of_place(row: RequestRecord, block: BlockRecord | None) -> str:
    if block is not None and row.start + row.seconds > block.seconds + _SLACK:
        return f"it ended {row.start + row.seconds - block.seconds:.2f} s after its block"
    return ""


def _falls(values: Iterable[float]) -> bool:
    return any(later < earlier for earlier, later in pairwise(values))
