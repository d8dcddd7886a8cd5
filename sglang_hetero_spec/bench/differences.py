"""Answers that are not those of no speculation, and how close the target's choice was where they part."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.records import DIFFERENCES_NAME, RequestRecord
from sglang_hetero_spec.bench.workload import Item
from sglang_hetero_spec.demo.summary import first_difference
from sglang_hetero_spec.files import write_lines
from sglang_hetero_spec.serving.client import Peer, logit_gap
from sglang_hetero_spec.serving.errors import ServingError

MAX_EXPLAINED = 16  # differences whose logits are asked for


@dataclass(frozen=True)
class Difference:
    """place: of the first token that differs. gap: of the target's two best logits there, None if not asked for."""

    arm: str
    setting: str
    repetition: int
    prompt: int
    place: int
    gap: float | None = None


def find_differences(records: Iterable[RequestRecord], baseline: str) -> list[Difference]:
    """Against the baseline's first repetition in the same setting; nothing for what has no such answer."""
    records = list(records)
    wanted: dict[tuple[str, int], RequestRecord] = {}
    for one in sorted(records, key=lambda record: record.repetition):
        if one.arm == baseline:
            wanted.setdefault((one.setting, one.prompt), one)
    found = []
    for one in records:
        reference = wanted.get((one.setting, one.prompt))
        if reference is None or reference is one:
            continue
        place = first_difference(reference.output_ids, one.output_ids)
        if place is not None:
            found.append(Difference(one.arm, one.setting, one.repetition, one.prompt, place))
    return found


def explain(
    found: Sequence[Difference],
    known: Mapping[Difference, float | None],
    records: Iterable[RequestRecord],
    items: Sequence[Item],
    servers: Mapping[str, Peer],
) -> list[Difference]:
    """With the gaps: those known (key: without gap), and of the first others those that `servers` (by arm) can say."""
    answers = {(one.arm, one.setting, one.repetition, one.prompt): one.output_ids for one in records}
    explained = []
    asked = len(known)
    for one in found:
        gap = known.get(one)
        if gap is None and asked < MAX_EXPLAINED and one.arm in servers:
            asked += 1
            committed = answers[one.arm, one.setting, one.repetition, one.prompt][: one.place]
            with contextlib.suppress(ServingError):  # a server that does not say: the difference counts as it is
                gap = logit_gap(servers[one.arm], items[one.prompt].body, committed)
        explained.append(replace(one, gap=gap))
    return explained


def read_gaps(folder: Path) -> dict[Difference, float | None]:
    """What an earlier session has asked for."""
    path = folder / DIFFERENCES_NAME
    if not path.exists():
        return {}
    try:
        rows = [Difference(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError):
        raise BenchError(f"{path} is damaged; remove it, and run the same command again.") from None
    return {replace(row, gap=None): row.gap for row in rows if row.gap is not None}


def write_differences(folder: Path, found: Iterable[Difference]) -> None:
    write_lines(folder / DIFFERENCES_NAME, (json.dumps(asdict(one)) for one in found), BenchError)
