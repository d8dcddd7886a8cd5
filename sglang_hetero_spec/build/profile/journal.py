"""What a profile has measured so far, on disk as it comes: a killed one goes on from there.

Beside `profile.jsonl` lie, until it is whole, `profile.jsonl.passes` (a line per pass) and `profile.jsonl.plan`
(what must stay the same for the passes to belong together).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sglang_hetero_spec.build.profile.records import (
    Key,
    ProfileError,
    ProfileRecord,
    append_record,
    read_part,
    write_profile,
)
from sglang_hetero_spec.files import write_lines


class Plan(BaseModel):
    """target, prompts: fingerprints. drafters: name -> fingerprint of its checkpoint."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    target: str
    prompts: str
    max_new_tokens: int
    flags: tuple[str, ...]
    drafters: dict[str, str]


class Journal:
    """The passes of one profile. The caller holds the lock of the folder."""

    def __init__(self, out: Path, plan: Plan) -> None:
        """ProfileError if the passes on disk were measured with another plan. New drafters may join."""
        self._out = out
        self._passes = out.with_name(f"{out.name}.passes")
        self._plan = out.with_name(f"{out.name}.plan")
        self._records = list(read_part(self._passes))
        drafters = dict(plan.drafters)
        if self._records:
            before = self._before()
            self._refuse_other(before, plan)
            drafters = before.drafters | drafters
        self._write_plan(plan.model_copy(update={"drafters": drafters}))
        self._done = Counter(record.key for record in self._records)

    @property
    def num_passes(self) -> int:
        return len(self._records)

    @property
    def records(self) -> tuple[ProfileRecord, ...]:
        """All passes so far."""
        return tuple(self._records)

    def passes_of(self, key: Key) -> int:
        return self._done[key]

    def append(self, record: ProfileRecord) -> None:
        try:
            append_record(self._passes, record)
        except OSError as error:
            raise ProfileError(
                f"{self._passes} cannot be written ({error.strerror}); free the disk and run the same command again,"
                " what was measured is kept."
            ) from None
        self._records.append(record)
        self._done[record.key] += 1

    def finish(self, keys: Sequence[Key], passes: int) -> tuple[ProfileRecord, ...]:
        """Write profile.jsonl, a line for each pass of `keys` (the first `passes` of each), and return the lines."""
        wanted = set(keys)
        taken: Counter[Key] = Counter()
        records = []
        for record in self._records:
            taken[record.key] += 1
            if record.key in wanted and taken[record.key] <= passes:
                records.append(record)
        write_profile(self._out, records)
        self._passes.unlink(missing_ok=True)
        self._plan.unlink(missing_ok=True)
        return tuple(records)

    def _before(self) -> Plan:
        try:
            return Plan.model_validate_json(self._plan.read_bytes())
        except (OSError, ValidationError):
            raise ProfileError(
                f"{self._passes} has passes of which nothing says how they were measured ({self._plan.name} is missing"
                " or damaged); remove it, or choose another --out."
            ) from None

    def _refuse_other(self, before: Plan, now: Plan) -> None:
        same = f"give the same, choose another --out, or remove {self._passes}"
        for field, what in (
            ("target", "another --target"),
            ("prompts", "other prompts (--prompts, --num-prompts)"),
            ("max_new_tokens", f"--max-new-tokens {before.max_new_tokens}"),
            ("flags", f"the SGLang flags `{' '.join(before.flags)}`"),
        ):
            if getattr(before, field) != getattr(now, field):
                raise ProfileError(f"{self._passes} was begun with {what}; {same}.")
        for name, fingerprint in now.drafters.items():
            if before.drafters.get(name, fingerprint) != fingerprint:
                raise ProfileError(f"{self._passes} was begun with another checkpoint as `{name}`; {same}.")

    def _write_plan(self, plan: Plan) -> None:
        write_lines(self._plan, [json.dumps(plan.model_dump(mode="json"))], ProfileError)
