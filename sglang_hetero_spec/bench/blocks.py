"""Which blocks a run has, in which order, and which of them are done: a run goes on where it was left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sglang_hetero_spec.bench.arms import Arm
from sglang_hetero_spec.bench.arrivals import Setting
from sglang_hetero_spec.bench.records import (
    BLOCKS_NAME,
    REQUESTS_NAME,
    BlockRecord,
    RequestRecord,
    append_block,
    append_requests,
    cut_torn_line,
    read_blocks,
    read_requests,
    write_requests,
)


class Key(NamedTuple):
    """What a block is of."""

    arm: str
    setting: str
    repetition: int


@dataclass(frozen=True)
class Block:
    """order: its place among all blocks of the run."""

    arm: Arm
    setting: Setting
    repetition: int
    order: int

    @property
    def key(self) -> Key:
        return Key(self.arm.name, self.setting.name, self.repetition)


def plan_blocks(groups: Sequence[Sequence[Arm]], settings: Sequence[Setting], repetitions: int) -> list[Block]:
    """groups: arms whose servers are up together, group after group.

    Within one, the repetitions one after the other, in each the settings, and in each of them all arms: there, and back
    again in the next repetition, so that an arm is not always the one that comes after the slow one.
    """
    blocks: list[Block] = []
    for group in groups:
        for repetition in range(repetitions):
            for setting in settings:
                for arm in group if repetition % 2 == 0 else list(reversed(group)):
                    blocks.append(Block(arm, setting, repetition, len(blocks)))
    return blocks


class Journal:
    """requests.jsonl and blocks.jsonl of a run, as they grow. Requests of a block that was broken off are forgotten."""

    def __init__(self, folder: Path) -> None:
        self._requests, self._blocks = folder / REQUESTS_NAME, folder / BLOCKS_NAME
        for path in (self._requests, self._blocks):
            cut_torn_line(path)
            path.touch()
        self.done = {Key(b.arm, b.setting, b.repetition) for b in read_blocks(self._blocks)}
        found = read_requests(self._requests)
        kept = [one for one in found if Key(one.arm, one.setting, one.repetition) in self.done]
        if len(kept) < len(found):
            write_requests(self._requests, kept)

    def add_request(self, record: RequestRecord) -> None:
        append_requests(self._requests, [record])

    def add_block(self, record: BlockRecord) -> None:
        """After all of its requests."""
        append_block(self._blocks, record)
        self.done.add(Key(record.arm, record.setting, record.repetition))

    def requests(self) -> list[RequestRecord]:
        return read_requests(self._requests)
