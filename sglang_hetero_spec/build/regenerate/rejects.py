"""answers.rejects.jsonl: the prompts that have no answer, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sglang_hetero_spec.build.regenerate.errors import cannot_write
from sglang_hetero_spec.files import replace_whole


@dataclass(frozen=True)
class RejectedPrompt:
    """is_final: the same command would find the same; else the prompt is asked again by the next run."""

    id: str
    reason: str
    is_final: bool


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: str
    reason: str
    is_final: bool


def rejects_path(out: Path) -> Path:
    return out.with_name(out.name.removesuffix(".jsonl") + ".rejects.jsonl")


def write(out: Path, rejects: Sequence[RejectedPrompt]) -> Path | None:
    """Write the file beside `out` and return its path; none if nothing was rejected."""
    path = rejects_path(out)
    try:
        if not rejects:
            path.unlink(missing_ok=True)
            return None
        replace_whole(path, (json.dumps(asdict(reject)).encode() + b"\n" for reject in rejects))
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def read_final(out: Path) -> dict[str, str]:
    """Id -> reason of what an earlier run found for good; empty if the file is missing or not ours."""
    try:
        lines = [_Line.model_validate_json(line) for line in rejects_path(out).read_bytes().splitlines()]
    except (OSError, ValidationError):
        return {}
    return {line.id: line.reason for line in lines if line.is_final}
