"""A run as `hetero-spec bench` records it, made up: good to cite, until a test breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sglang_hetero_spec.bench.records import (
    BlockRecord,
    RequestRecord,
    read_blocks,
    read_requests,
    write_blocks,
    write_requests,
)

TASKS = ("python", "sql", "german")
SETTINGS = ("c1", "c4")
_STEPS = 4
_CORRECT = {  # chance that a draft is right, by arm and whether the drafter is the task's own
    "standalone": 0.55, "standalone-best": 0.6, "ngram": 0.3, "hetero": 0.75, "hetero-oracle": 0.76,
    "hetero-random": 0.5, "hetero-worst": 0.35,
}  # fmt: skip
ARMS = ("none", *_CORRECT)


@dataclass(frozen=True)
class Shape:
    """How large a made-up run is."""

    arms: tuple[str, ...] = ARMS
    settings: tuple[str, ...] = SETTINGS
    tasks: tuple[str, ...] = TASKS
    num_prompts: int = 9
    repetitions: int = 3
    tokens: int = 48
    seed: int = 0


def write_run(folder: Path, shape: Shape = Shape()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    requests, blocks = records(shape)
    write_requests(folder / "requests.jsonl", requests)
    write_blocks(folder / "blocks.jsonl", blocks)
    write_metadata(folder, metadata(shape))
    return folder


def records(shape: Shape) -> tuple[list[RequestRecord], list[BlockRecord]]:
    requests: list[RequestRecord] = []
    blocks: list[BlockRecord] = []
    generator = np.random.default_rng(shape.seed)
    for setting in shape.settings:
        for repetition in range(shape.repetitions):
            for arm in shape.arms if repetition % 2 == 0 else reversed(shape.arms):
                rows = _block_requests(shape, arm, setting, repetition, generator)
                requests += rows
                blocks.append(_block(rows, len(blocks), _in_flight(setting)))
    return requests, blocks


def metadata(shape: Shape) -> dict[str, Any]:
    arms = [_arm(name) for name in shape.arms]
    servers = {arm["server"] for arm in arms}
    return {
        "format": "sglang_hetero_spec.bench",
        "schema_version": 1,
        "command": ["hetero-spec", "bench", "--pool", "pool/", "--concurrency", "1,4"],
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 812.5,
        "complete": True,
        "versions": {"sglang": "0.5.23", "torch": "2.9.1", "sglang-hetero-spec": "0.1.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "clean_tree": True,
        "machine": {
            "processor": "A Made-Up CPU", "cores": 4, "threads": 2, "device": "cpu", "dtype": "float32",
            "memory_gb": 20.1, "python": "3.12.3", "torch": "2.9.1", "sglang": "0.5.23",
        },
        "engine": {
            "kind": "sglang",
            "servers": {
                name: {"options": ["--x"], "version": "0.5.23", "model_path": "/t/target", "started_by_us": True}
                for name in sorted(servers)
            },
        },
        "target": {"path": "/t/target", "num_params": 200_000_000, "weights_sha256": "a" * 64, "note": "a stand-in"},
        "pool": {"path": "pool/", "manifest_sha256": "b" * 64},
        "workload": {
            "name": "demo", "sha256": "c" * 64, "num_prompts": shape.num_prompts,
            "tasks": {task: len(range(place, shape.num_prompts, len(shape.tasks)))
                      for place, task in enumerate(shape.tasks)},
            "max_new_tokens": shape.tokens, "temperature": 0.0,
        },
        "settings": list(shape.settings),
        "repetitions": shape.repetitions,
        "warm_up": 2,
        "arms": arms,
        "baseline": "none",
        "seed": 7,
    }  # fmt: skip


def _arm(name: str) -> dict[str, Any]:
    routers = {"hetero": "real", "hetero-oracle": "oracle", "hetero-random": "random", "hetero-worst": "worst"}
    return {
        "name": name,
        "server": "hetero" if name in routers else name,
        "title": name.upper(),
        "definition": f"what {name} is",
        "router": routers.get(name),
        "drafter": "general" if name == "standalone" else "python" if name == "standalone-best" else None,
    }


def _block_requests(
    shape: Shape, arm: str, setting: str, repetition: int, generator: np.random.Generator
) -> list[RequestRecord]:
    lanes = [0.0] * _in_flight(setting)
    rows = []
    for prompt in range(shape.num_prompts):
        lane = lanes.index(min(lanes))
        row = _request(shape, (arm, setting, repetition, prompt), lanes[lane], generator)
        lanes[lane] += row.seconds
        rows.append(row)
    return rows


def _request(
    shape: Shape, name: tuple[str, str, int, int], start: float, generator: np.random.Generator
) -> RequestRecord:
    arm, setting, repetition, prompt = name
    task = shape.tasks[prompt % len(shape.tasks)]
    output = np.random.default_rng((shape.seed, prompt)).integers(0, 1000, shape.tokens + prompt).tolist()
    correct = _drafts(arm, len(output), prompt, np.random.default_rng((shape.seed, prompt, ARMS.index(arm))))
    step = 0.02 * (1 + 0.1 * _in_flight(setting)) * (1 if arm == "none" else 1.25) * generator.lognormal(0, 0.02)
    ttft = 0.05 * generator.lognormal(0, 0.1)
    chunks, tokens = [(ttft, 1)], 1
    for number, found in enumerate(correct, start=1):
        tokens = min(tokens + found + 1, len(output))
        chunks.append((ttft + step * number, tokens))
    known = arm != "none"
    return RequestRecord(
        arm=arm, setting=setting, repetition=repetition, prompt=prompt, task=task, prompt_tokens=20 + prompt,
        completion_tokens=len(output), start=start, seconds=chunks[-1][0] + 0.001, ttft=ttft, chunks=chunks,
        verify_steps=len(correct) if known else None,
        proposed=_STEPS * len(correct) if known else None,
        correct=sum(correct) if known else None,
        histogram=[correct.count(number) for number in range(_STEPS + 1)] if known else None,
        drafter=task if arm.startswith("hetero") else None,
        confidence=0.97 if arm == "hetero" else None,
        source="router" if arm == "hetero" else None,
        output_ids=output, finish="length",
    )  # fmt: skip


def _drafts(arm: str, tokens: int, prompt: int, generator: np.random.Generator) -> list[int]:
    """Correct drafts of each step."""
    chance = _CORRECT.get(arm, 0.0) * (1 - 0.02 * (prompt % 3))
    found, left = [], tokens - 1
    while left > 0:
        right = int(np.argmin([*(generator.random(_STEPS) < chance), False])) if arm != "none" else 0
        right = min(right, left - 1)
        found.append(right)
        left -= right + 1
    return found


def _block(rows: Sequence[RequestRecord], order: int, in_flight: int) -> BlockRecord:
    first, wall = rows[0], max(row.start + row.seconds for row in rows)
    counted = first.arm.startswith("hetero")
    busy = 0.9 * sum(row.seconds for row in rows) / in_flight
    names = sorted({row.drafter for row in rows if row.drafter})
    return BlockRecord(
        arm=first.arm, setting=first.setting, repetition=first.repetition, order=order, seconds=wall, peak_load=1.5,
        draft_seconds=0.2 * busy if counted else None,
        target_seconds=0.77 * busy if counted else None,
        host_seconds=0.03 * busy if counted else None,
        forwards=sum(row.verify_steps or 0 for row in rows) // in_flight if counted else None,
        route_seconds=0.0002 * len(rows) if first.arm == "hetero" else None,
        routes=len(rows) if first.arm == "hetero" else None,
        drafter_seconds={name: 0.2 * busy / len(names) for name in names} if counted else None,
        kv_bytes=123_000_000, kv_used_tokens=400 * in_flight,
    )  # fmt: skip


def _in_flight(setting: str) -> int:
    return int(setting[1:]) if setting.startswith("c") else 3


def write_metadata(folder: Path, value: dict[str, Any]) -> None:
    (folder / "metadata.json").write_text(json.dumps(value, indent=2), encoding="utf-8")


def edit_metadata(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    edit(value)
    write_metadata(folder, value)


def edit_requests(folder: Path, edit: Callable[[RequestRecord], RequestRecord | None]) -> None:
    """Every record through `edit`; None takes it out."""
    path = folder / "requests.jsonl"
    write_requests(path, [row for old in read_requests(path) if (row := edit(old)) is not None])


def edit_blocks(folder: Path, edit: Callable[[BlockRecord], BlockRecord | None]) -> None:
    path = folder / "blocks.jsonl"
    write_blocks(path, [row for old in read_blocks(path) if (row := edit(old)) is not None])


def only(arm: str, **changes: Any) -> Callable[[RequestRecord], RequestRecord]:
    """An edit of the first prompt's first request of one arm."""

    def edit(row: RequestRecord) -> RequestRecord:
        hit = (row.arm, row.prompt, row.repetition, row.setting) == (arm, 0, 0, SETTINGS[0])
        return replace(row, **changes) if hit else row

    return edit
