"""pool.json as written: strict models (an unknown key, `true` for 1 or 4.0 for 4 is an error)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = "sglang_hetero_spec.pool"
SCHEMA_VERSION = 1
MANIFEST_NAME = "pool.json"

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Target(_Strict):
    name_or_path: str | None = None
    tokenizer_sha256: Sha256 | None = None


class Drafter(_Strict):
    name: Name
    kind: str
    path: str | None = None
    vocab: str = "shared"
    num_steps: int | None = None
    topk: int | None = None
    num_draft_tokens: int | None = None
    external: bool = False
    weights_sha256: Sha256 | None = None
    tokenizer_sha256: Sha256 | None = None
    base: str | None = None
    capacity: int | None = None
    exits: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None


class Task(_Strict):
    id: Name
    name: str | None = None
    drafter: str
    second_drafter: str | None = None


class Router(_Strict):
    path: str
    min_confidence: Annotated[float, Field(ge=0, le=1)]
    second_below: Annotated[float, Field(ge=0, le=1)] | None = None


class Manifest(_Strict):
    format: Literal["sglang_hetero_spec.pool"]
    schema_version: int
    target: Target = Target()
    drafters: Annotated[tuple[Drafter, ...], Field(min_length=1)]
    tasks: tuple[Task, ...] = ()
    fallback_drafter: str
    merged_draft_tokens: int | None = None
    router: Router | None = None
