"""The files of a run, read once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.records import (
    BLOCKS_NAME,
    DIFFERENCES_NAME,
    FORMAT,
    METADATA_NAME,
    REQUESTS_NAME,
    SCHEMA_VERSION,
    BlockRecord,
    RequestRecord,
    read_blocks,
    read_requests,
)
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.strict_json import parse_object, read_text

AGGREGATE_NAME = "aggregate.json"
SUMMARY_NAME = "summary.md"
REPORT_NAME = "report.html"
RECORD_NAMES = (METADATA_NAME, REQUESTS_NAME, BLOCKS_NAME, DIFFERENCES_NAME)
MAX_BYTES = 1 << 30
_SETTING = re.compile(r"([cr])(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Run:
    """What was recorded. differences: lines of differences.jsonl, None without the file. sha256: of each file of
    records by name, None where it is not there."""

    folder: Path
    metadata: dict[str, Any]
    requests: tuple[RequestRecord, ...]
    blocks: tuple[BlockRecord, ...]
    differences: tuple[dict[str, Any], ...] | None
    sha256: dict[str, str | None]

    @property
    def baseline(self) -> str:
        """The arm whose output and speed the others are compared with."""
        return str(self.metadata.get("baseline") or "none")

    @property
    def promised_arms(self) -> tuple[str, ...]:
        """The arms that metadata.json names."""
        listed = self.metadata.get("arms")
        items = listed if isinstance(listed, list) else []
        return tuple(str(item["name"]) for item in items if isinstance(item, dict) and "name" in item)

    @property
    def promised_settings(self) -> tuple[str, ...]:
        listed = self.metadata.get("settings")
        return tuple(str(item) for item in listed) if isinstance(listed, list) else ()

    @property
    def arms(self) -> tuple[str, ...]:
        """In the order of metadata.json, then those that only have records."""
        return tuple(dict.fromkeys([*self.promised_arms, *(row.arm for row in self.requests)]))

    @property
    def settings(self) -> tuple[str, ...]:
        """By load: so many in flight, then so many a second, then others."""
        return tuple(sorted({*self.promised_settings, *(row.setting for row in self.requests)}, key=_load))

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order of metadata.json, then as met."""
        workload = self.metadata.get("workload")
        listed = workload.get("tasks") if isinstance(workload, dict) else None
        named = list(listed) if isinstance(listed, dict) else []
        return tuple(dict.fromkeys([*named, *(row.task for row in self.requests)]))

    @property
    def temperature(self) -> float | None:
        workload = self.metadata.get("workload")
        found = workload.get("temperature") if isinstance(workload, dict) else None
        return float(found) if isinstance(found, int | float) else None

    @property
    def seed(self) -> int:
        found = self.metadata.get("seed")
        return found if isinstance(found, int) and found >= 0 else 0


def _load(setting: str) -> tuple[int, float, str]:
    found = _SETTING.fullmatch(setting)
    return ("cr".index(found[1]), float(found[2]), setting) if found else (2, 0.0, setting)


def read_run(folder: str | Path) -> Run:
    """The records in `folder`; BenchError in one sentence for a file that is missing or broken."""
    folder = Path(folder)
    metadata = read_object(folder / METADATA_NAME)
    if metadata.get("format") != FORMAT or metadata.get("schema_version") != SCHEMA_VERSION:
        raise BenchError(
            f"{folder / METADATA_NAME} is not of format {FORMAT}, schema_version {SCHEMA_VERSION}; give the folder of a"
            " run of this version of `hetero-spec bench`."
        )
    differences = folder / DIFFERENCES_NAME
    return Run(
        folder=folder,
        metadata=metadata,
        requests=tuple(read_requests(folder / REQUESTS_NAME)),
        blocks=tuple(read_blocks(folder / BLOCKS_NAME)),
        differences=tuple(_objects(differences)) if differences.exists() else None,
        sha256={name: _sha256(folder / name) for name in RECORD_NAMES},
    )


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object."""
    try:
        return parse_object(read_text(path, MAX_BYTES), path)
    except PoolError as error:
        raise BenchError(str(error)) from None


def _objects(path: Path) -> list[dict[str, Any]]:
    try:
        lines = enumerate(read_text(path, MAX_BYTES).split("\n"), start=1)
        return [parse_object(line, Path(f"{path}, line {number},")) for number, line in lines if line.strip()]
    except PoolError as error:
        raise BenchError(str(error)) from None


def _sha256(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
