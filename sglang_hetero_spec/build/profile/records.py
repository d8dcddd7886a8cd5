"""profile.jsonl: what was counted while one drafter served one task, one measurement a line. Never a ratio.

Ratios are properties, and are only ever taken of sums: measurements of one key are added up (`merged`) first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_whole
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.kinds import MAX_NUM_DRAFT_TOKENS, MAX_NUM_STEPS, MAX_TOPK, max_tree_nodes
from sglang_hetero_spec.pool.schema import Name
from sglang_hetero_spec.pool.strict_json import parse_object, read_text

NONE = "none"
MAX_PROFILE_BYTES = 256 << 20

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class ProfileError(HeteroError):
    """A profile that cannot be used; `str(error)` is one sentence: what, where, what to do."""


class Settings(NamedTuple):
    """The shape of a drafter's tree: a chain has topk 1 and num_steps + 1 draft tokens, `none` has 0, 1, 1.

    Under `vocab: slem` num_steps counts the drafter's own tokens and num_draft_tokens the target's: any numbers.
    """

    num_steps: int
    topk: int
    num_draft_tokens: int

    @property
    def is_chain(self) -> bool:
        return self.topk == 1

    @property
    def depth(self) -> int:
        """How many drafts may be right in one verify step."""
        return self.num_draft_tokens - 1 if self.is_chain else self.num_steps

    def __str__(self) -> str:
        return "/".join(map(str, self))


NO_SETTINGS = Settings(0, 1, 1)


class Key(NamedTuple):
    """What a measurement is of."""

    drafter: str
    task: str
    settings: Settings
    concurrency: int

    def __str__(self) -> str:
        return f"`{self.drafter}` ({self.settings}) on task `{self.task}` at concurrency {self.concurrency}"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class ProfileRecord:
    """Raw counts of `requests` requests of one task served by one drafter, `concurrency` of them in flight.

    verify_steps: summed over requests (SGLang's spec_verify_ct); a step of a batch of 4 requests counts 4.
    proposed_drafts: draft tokens verified, without the root. correct_by_position[i]: of the verify steps, how many
    found at least i + 1 drafts right (no bonus); as long as num_steps. completion_tokens: all that came out, also the
    first token, which the prefill gives. Seconds are wall seconds of the whole batch: draft_seconds and verify_seconds
    the sums over batch steps, `seconds` the whole measurement. verify_forwards: batch steps, i.e. target forwards
    other than prefills; None where they were not counted, then verify_steps / min(concurrency, requests) stands in.
    """

    drafter: Name
    task: Name
    num_steps: Annotated[int, Field(ge=0, le=MAX_NUM_STEPS)]
    topk: Annotated[int, Field(ge=1, le=MAX_TOPK)]
    num_draft_tokens: Annotated[int, Field(ge=1, le=MAX_NUM_DRAFT_TOKENS)]
    concurrency: Positive
    requests: Positive
    verify_steps: Positive
    proposed_drafts: Count
    correct_by_position: tuple[Count, ...]
    completion_tokens: Positive
    draft_seconds: Seconds
    verify_seconds: Annotated[float, Field(gt=0)]
    seconds: Annotated[float, Field(gt=0)]
    verify_forwards: Positive | None = None
    vocab: str = "shared"

    @model_validator(mode="after")
    def _counts_agree(self) -> ProfileRecord:
        problem = _shape_problem(self) or _count_problem(self)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def settings(self) -> Settings:
        return Settings(self.num_steps, self.topk, self.num_draft_tokens)

    @property
    def key(self) -> Key:
        return Key(self.drafter, self.task, self.settings, self.concurrency)

    @property
    def num_correct_drafts(self) -> int:
        """Drafts found right, without bonus tokens."""
        return sum(self.correct_by_position)

    @property
    def accept_length(self) -> float:
        """Completion tokens / verify steps: the bonus token counts (SGLang's naming)."""
        return self.completion_tokens / self.verify_steps

    @property
    def accept_rate(self) -> float | None:
        """Correct / proposed drafts, no bonus; None where nothing was proposed."""
        return self.num_correct_drafts / self.proposed_drafts if self.proposed_drafts else None

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / self.seconds

    @property
    def forwards(self) -> float:
        """Batch steps: counted, or what a batch that is always full would need."""
        if self.verify_forwards is not None:
            return self.verify_forwards
        return self.verify_steps / min(self.concurrency, self.requests)


def _shape_problem(record: ProfileRecord) -> str | None:
    settings = record.settings
    if (record.drafter == NONE) != (settings.num_steps == 0) or (settings.num_steps == 0 and settings != NO_SETTINGS):
        return f"`{NONE}`, and only it, has the settings {NO_SETTINGS} (steps/topk/draft tokens), not {settings}"
    if settings.is_chain and record.vocab != "slem" and settings.num_draft_tokens != settings.num_steps + 1:
        return f"a chain of {settings.num_steps} steps has {settings.num_steps + 1} draft tokens"
    if not settings.is_chain and settings.num_draft_tokens > max_tree_nodes(settings.num_steps, settings.topk):
        return "`num_draft_tokens` is more than a tree of these steps and topk has"
    return None


def _count_problem(record: ProfileRecord) -> str | None:
    counts = record.correct_by_position
    if len(counts) != record.settings.depth:
        return (
            f"`correct_by_position` has {len(counts)} entries, not {record.settings.depth}, one for each draft in a row"
        )
    if any(later > earlier for earlier, later in zip((record.verify_steps, *counts), counts, strict=False)):
        return "`correct_by_position` must not rise, nor start above `verify_steps`"
    highest = record.verify_steps * (record.num_draft_tokens - 1)
    if not record.num_correct_drafts <= record.proposed_drafts <= highest:
        return f"`proposed_drafts` must lie between the correct ones, {record.num_correct_drafts}, and {highest}"
    if record.verify_forwards is not None and record.verify_forwards > record.verify_steps:
        return "`verify_forwards` must not exceed `verify_steps`"
    return None


_ADAPTER = TypeAdapter(ProfileRecord)


def read_profile(path: str | Path) -> tuple[ProfileRecord, ...]:
    """The records of a profile.jsonl, one for each key (`merged`); ProfileError in one sentence."""
    records = [_parsed(line, where) for where, line in _lines(Path(path))]
    if not records:
        raise ProfileError(f"{path} has no records; run `hetero-spec profile` again.")
    return merged(records)


def read_part(path: str | Path) -> tuple[ProfileRecord, ...]:
    """What an interrupted measurement has appended so far; a torn last line is cut off the file."""
    path = Path(path)
    if not path.exists():
        return ()
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return tuple(_parsed(line, where) for where, line in _lines(path))


def append_record(path: str | Path, record: ProfileRecord) -> None:
    """One whole line at the end of the file, on the disk when this returns."""
    with Path(path).open("ab") as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())


def write_profile(path: str | Path, records: Iterable[ProfileRecord]) -> None:
    """Write the records whole or not at all; ProfileError if the disk refuses."""
    write_whole(Path(path), map(_line, records), ProfileError)


def merged(records: Iterable[ProfileRecord]) -> tuple[ProfileRecord, ...]:
    """One record for each key, its counts and seconds summed, in the order of first appearance."""
    groups: dict[Key, list[ProfileRecord]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    return tuple(group[0] if len(group) == 1 else _sum(group) for group in groups.values())


def _sum(group: Sequence[ProfileRecord]) -> ProfileRecord:
    counts: dict[str, Any] = asdict(group[0])
    for name in ("requests", "verify_steps", "proposed_drafts", "completion_tokens"):
        counts[name] = sum(getattr(record, name) for record in group)
    for name in ("draft_seconds", "verify_seconds", "seconds"):
        counts[name] = float(sum(getattr(record, name) for record in group))
    counts["correct_by_position"] = tuple(
        sum(column) for column in zip(*(record.correct_by_position for record in group), strict=True)
    )
    forwards = [record.verify_forwards for record in group]
    counts["verify_forwards"] = None if None in forwards else sum(number for number in forwards if number is not None)
    return ProfileRecord(**counts)


def _line(record: ProfileRecord) -> bytes:
    return _ADAPTER.dump_json(record) + b"\n"


def _lines(path: Path) -> Iterable[tuple[str, str]]:
    try:
        text = read_text(path, MAX_PROFILE_BYTES)
    except PoolError as error:
        raise ProfileError(str(error)) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number},", line


def _parsed(line: str, where: str) -> ProfileRecord:
    try:
        parse_object(line, Path(where))
        return _ADAPTER.validate_json(line)
    except PoolError as error:
        raise ProfileError(str(error)) from None
    except ValidationError as error:
        raise ProfileError(_sentence(error.errors(include_url=False)[0], where)) from None


def _sentence(error: Any, where: str) -> str:
    field = ".".join(str(part) for part in error["loc"])
    again = "correct it, or run `hetero-spec profile` again"
    if not field:
        return f"{where} is not a record of a profile ({error['msg'].removeprefix('Value error, ')}); {again}."
    if error["type"] in ("missing", "missing_argument"):
        return f"{where} lacks `{field}`; {again}."
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where} has the key `{field}`, which is unknown; {again}."
    reason = error["msg"].removeprefix("Value error, ")
    return f"{where} has `{field}` as {shown(error['input'])} ({reason[:1].lower()}{reason[1:]}); {again}."
