"""A run's blocks with their requests, and which server served them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.records import (
    BLOCKS_NAME,
    METADATA_NAME,
    REQUESTS_NAME,
    BlockRecord,
    RequestRecord,
    read_blocks,
    read_requests,
)


@dataclass(frozen=True)
class Block:
    """server: blocks of one server share its costs."""

    server: str
    record: BlockRecord
    requests: tuple[RequestRecord, ...]

    @property
    def arm(self) -> str:
        return self.record.arm

    @property
    def setting(self) -> str:
        return self.record.setting

    @property
    def in_flight(self) -> int | None:
        """None where requests arrive by the clock."""
        return in_flight(self.setting)

    @property
    def tokens(self) -> int:
        return sum(request.completion_tokens for request in self.requests)


def in_flight(setting: str) -> int | None:
    """4 of `c4`, None of `r2.5`."""
    return int(setting[1:]) if re.fullmatch(r"c[1-9]\d*", setting) else None


def read_run(folder: str | Path) -> list[Block]:
    """The blocks of a run that have requests, in its order. BenchError, in one sentence, for files of no run."""
    folder = Path(folder)
    servers = _servers(folder / METADATA_NAME)
    requests: dict[tuple[str, str, int], list[RequestRecord]] = {}
    for request in read_requests(folder / REQUESTS_NAME):
        requests.setdefault((request.arm, request.setting, request.repetition), []).append(request)
    blocks = []
    for record in sorted(read_blocks(folder / BLOCKS_NAME), key=lambda record: record.order):
        mine = requests.get((record.arm, record.setting, record.repetition), [])
        if mine and record.seconds > 0:
            mine.sort(key=lambda request: (request.start, request.prompt))
            blocks.append(Block(servers.get(record.arm, record.arm), record, tuple(mine)))
    return blocks


def settings_of(blocks: Sequence[Block]) -> list[str]:
    """Numbers in flight ascending, then the others as the run had them."""
    found = dict.fromkeys(block.setting for block in blocks)
    closed = sorted((one for one in found if in_flight(one)), key=lambda one: in_flight(one) or 0)
    return closed + [one for one in found if not in_flight(one)]


def _servers(path: Path) -> dict[str, str]:
    try:
        metadata: Any = json.loads(path.read_text(encoding="utf-8"))
        return {arm["name"]: arm["server"] for arm in metadata.get("arms", [])}
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}); give the folder of a run of `bench`.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BenchError(f"{path} is not the metadata of a run; run `hetero-spec bench` again.") from None
