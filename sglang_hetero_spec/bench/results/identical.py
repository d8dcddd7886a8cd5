"""Is every answer, token for token, that of the baseline?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sglang_hetero_spec.bench.records import RequestRecord

Wanted = Mapping[tuple[str, int], list[int]]  # by setting and prompt


def reference(requests: Iterable[RequestRecord], baseline: str) -> dict[tuple[str, int], list[int]]:
    """The baseline's answer to each prompt in each setting, of its first repetition: one truth for all arms."""
    found: dict[tuple[str, int], list[int]] = {}
    for record in sorted(requests, key=lambda record: record.repetition):
        if record.arm == baseline and has_output(record):
            found.setdefault((record.setting, record.prompt), record.output_ids)
    return found


def has_output(record: RequestRecord) -> bool:
    """Its token ids are on record."""
    return bool(record.output_ids) or record.completion_tokens == 0


def sameness(requests: Iterable[RequestRecord], wanted: Wanted, temperature: float | None) -> dict[str, Any]:
    """value: True if all were compared and are equal, False if one is not, None if that is not known. differing:
    requests that are not equal; differing_prompts: their prompts. Sampled answers cannot be compared."""
    rows = list(requests)
    compared = [row for row in rows if temperature == 0 and (row.setting, row.prompt) in wanted and has_output(row)]
    differing = [row.prompt for row in compared if row.output_ids != wanted[row.setting, row.prompt]]
    value = False if differing else (True if rows and len(compared) == len(rows) else None)
    return {
        "value": value,
        "compared": len(compared),
        "differing": len(differing) if compared else None,
        "differing_prompts": sorted(set(differing)) if compared else None,
    }
