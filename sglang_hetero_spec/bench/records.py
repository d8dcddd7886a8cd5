"""requests.jsonl and blocks.jsonl: what one request and one block were, one object a line. Counts, never ratios.

A block is one arm in one setting, one repetition: every prompt of the workload once. A setting is `c4` (4 requests in
flight) or `r2.5` (requests arrive as a Poisson process of 2.5 a second). What a server does not say is null, never 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.files import write_whole
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.strict_json import parse_object

# Of metadata.json.
FORMAT, SCHEMA_VERSION = "sglang_hetero_spec.bench", 1
METADATA_NAME = "metadata.json"
REQUESTS_NAME = "requests.jsonl"
BLOCKS_NAME = "blocks.jsonl"
DIFFERENCES_NAME = "differences.jsonl"

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class RequestRecord:
    """One answer.

    prompt: index into the workload. start: seconds since the block's start at which it was sent; seconds: from sending
    to the last byte; ttft: to the first token. chunks: (seconds since sending, completion tokens so far), as streamed.
    verify_steps, proposed, correct: SGLang's spec_verify_ct, spec_num_proposed_drafts, spec_num_correct_drafts (no
    bonus). histogram[k]: verify steps that found exactly k drafts right. drafter, confidence, source: of
    meta_info["hetero"]. finish: SGLang's finish reason.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    arm: str
    setting: str
    repetition: Count
    prompt: Count
    task: str
    prompt_tokens: Count
    completion_tokens: Count
    start: Seconds
    seconds: Seconds
    ttft: Seconds | None
    chunks: list[tuple[Seconds, Count]]
    verify_steps: Count | None
    proposed: Count | None
    correct: Count | None
    histogram: list[Count] | None
    drafter: str | None
    confidence: float | None
    source: str | None
    output_ids: list[int]
    finish: str


@dataclass(frozen=True)
class BlockRecord:
    """One block.

    order: its place among all blocks of the run. seconds: wall, from the first request's start to the last one's end.
    peak_load: the machine's 1-minute load average at its end. The others are differences of the server's counters over
    the block: draft_seconds proposing, target_seconds the target's forwards of verify steps, host_seconds the rest of
    those steps, forwards their number; route_seconds and routes of the router; drafter_seconds: draft_seconds by
    drafter. kv_bytes: memory of the KV cache; kv_used_tokens: the most tokens seen in it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    arm: str
    setting: str
    repetition: Count
    order: Count
    seconds: Seconds
    peak_load: float | None
    draft_seconds: float | None
    target_seconds: float | None
    host_seconds: float | None
    forwards: Count | None
    route_seconds: float | None
    routes: Count | None
    drafter_seconds: dict[str, float] | None
    kv_bytes: Count | None
    kv_used_tokens: Count | None


_REQUESTS: TypeAdapter[RequestRecord] = TypeAdapter(RequestRecord)
_BLOCKS: TypeAdapter[BlockRecord] = TypeAdapter(BlockRecord)


def read_requests(path: str | Path) -> list[RequestRecord]:
    """The records of a requests.jsonl; BenchError at the first line that is not one."""
    return _read(Path(path), _REQUESTS)


def read_blocks(path: str | Path) -> list[BlockRecord]:
    """The records of a blocks.jsonl; BenchError at the first line that is not one."""
    return _read(Path(path), _BLOCKS)


def write_requests(path: str | Path, records: Iterable[RequestRecord]) -> None:
    """Write them whole or not at all; BenchError if the disk refuses."""
    write_whole(Path(path), (_line(_REQUESTS, record) for record in records), BenchError)


def write_blocks(path: str | Path, records: Iterable[BlockRecord]) -> None:
    """Write them whole or not at all; BenchError if the disk refuses."""
    write_whole(Path(path), (_line(_BLOCKS, record) for record in records), BenchError)


def append_requests(path: str | Path, records: Iterable[RequestRecord]) -> None:
    """Whole lines at the end of the file, with the system when this returns."""
    _append(Path(path), [_line(_REQUESTS, record) for record in records], sync=False)


def append_block(path: str | Path, record: BlockRecord) -> None:
    """One whole line at the end of the file, on the disk when this returns."""
    _append(Path(path), [_line(_BLOCKS, record)], sync=True)


def cut_torn_line(path: str | Path) -> None:
    """Cut off a last line that was not written to its end."""
    path = Path(path)
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _line(adapter: TypeAdapter[Any], record: object) -> bytes:
    return adapter.dump_json(record) + b"\n"


def _append(path: Path, lines: list[bytes], sync: bool) -> None:
    try:
        with path.open("ab") as file:
            file.writelines(lines)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise BenchError(
            f"{path} cannot be written ({error.strerror or error}); free some space and run the same command again,"
            " what was measured is kept."
        ) from None


def _read(path: Path, adapter: TypeAdapter[Any]) -> list[Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}); give the folder of a run of `bench`.") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{path} is not UTF-8 (byte {error.start}); run `hetero-spec bench` again.") from None
    lines = enumerate(text.split("\n"), start=1)
    return [_parsed(line, f"{path}, line {number},", adapter) for number, line in lines if line.strip()]


def _parsed(line: str, where: str, adapter: TypeAdapter[Any]) -> Any:
    try:
        parse_object(line, Path(where))
        return adapter.validate_json(line)
    except PoolError as error:
        raise BenchError(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f" (found {shown(first['input'])})"
        raise BenchError(
            f"{where} is not a record of a run: `{field}`: {first['msg'].lower()}{found}; run `hetero-spec bench`"
            " again."
        ) from None
