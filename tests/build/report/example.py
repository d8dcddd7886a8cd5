"""A build's folder as a report finds it, made up from the demo's tasks: `python -m tests.build.report.example DIR`."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

import numpy as np

from sglang_hetero_spec.build.assign.assignment import assign
from sglang_hetero_spec.build.assign.result import Assignment, write_assignment, write_json
from sglang_hetero_spec.build.assign.threshold import choose_threshold, seconds_matrix
from sglang_hetero_spec.build.profile.model import SpeedModel
from sglang_hetero_spec.build.profile.records import ProfileRecord, write_profile
from sglang_hetero_spec.build.prompts import Prompt, Reject, plain_prompt, write_lines, write_prompts, write_rejects
from sglang_hetero_spec.build.report.measured import MeasuredRun, write_measured
from sglang_hetero_spec.demo.data import TASK_NAMES, TASKS, Sources, examples
from tests.build.assign.profiles import record

SIZES = {"python": 90, "math": 70, "e2e": 60, "json": 60, "sql": 50, "translate": 40}
OUTLIERS = ("What is the capital of Peru?", "hi", "Sing me a sea shanty about type systems, please.")
TERMS = {
    "python": ["function", "return", "python", "def", "docstring", "signature"],
    "math": ["how many", "does", "have", "then", "left", "answer"],
    "e2e": ["name", "eattype", "familyfriendly", "customer rating", "pricerange"],
    "json": ["json", "object", "attributes", "description", "structured"],
    "sql": ["sql", "schema", "tables", "where", "request"],
    "translate": ["german", "translate", "because", "sentence", "english"],
}
STEPS = (2, 4)
CONCURRENCY = 4


def make_example(folder: Path, size: float = 1.0) -> Path:
    """Write everything that a report may read; `size` scales the number of prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {task: max(6, round(size * count)) for task, count in SIZES.items()}
    prompts = make_prompts(counts)
    write_prompts(folder / "prompts.jsonl", prompts)
    write_json_array(folder / "tasks.json", tasks_of(prompts))
    write_json(folder / "partition.json", make_partition(prompts))
    write_rejects(folder / "rejects.jsonl", make_rejects())
    unanswered = {"id": prompts[3].id, "reason": "the prompt has 9000 tokens, the context 4096", "is_final": True}
    write_lines(folder / "answers.rejects.jsonl", [unanswered])
    records = make_records()
    write_profile(folder / "profile.jsonl", records)
    assignment = assign(records, traffic={task: float(count) for task, count in counts.items()})
    write_assignment(folder / "assignment.json", assignment)
    write_threshold(folder / "router", records, assignment, counts)
    for name in ("general", *TASKS):
        write_learned(folder / "align" / name, name)
    write_measured(folder / "measured.jsonl", make_runs(assignment))
    (folder / "command.txt").write_text("hetero-spec build --target big/ --prompts log.jsonl --out pool/ --seed 1\n")
    (folder / "run.yaml").write_text(
        "target: big/\nprompts: log.jsonl\nseed: 1\nalign:\n  loss: forward_kl\n  tokens: 400000\n"
    )
    write_json(folder / "versions.json", {"sglang": "0.5.23", "scikit-learn": "1.7.0"})
    return folder


def make_prompts(counts: dict[str, int]) -> list[Prompt]:
    made = [
        plain_prompt(item.prompt, TASK_NAMES[task], task)
        for task, count in counts.items()
        for item in examples(task, count, heldout=False, sources=Sources(None), seed=3)
    ]
    made += [plain_prompt(text) for text in OUTLIERS]
    random.Random(1).shuffle(made)
    return made


def tasks_of(prompts: list[Prompt]) -> list[dict]:
    found = []
    for task, name in TASK_NAMES.items():
        mine = [prompt.text for prompt in prompts if prompt.task == task]
        found.append(
            {
                "id": task,
                "name": name,
                "size": len(mine),
                "requests": len(mine) + 2,
                "top_terms": TERMS[task],
                "examples": mine[:3],
            }
        )
    return found


def make_partition(prompts: list[Prompt]) -> dict:
    tried = ((2, 0.61, 0.92, 0.31), (4, 0.83, 0.94, 0.42), (6, 0.97, 0.99, 0.55), (8, 0.81, 0.9, 0.49))
    names = ("n_tasks", "view_stability", "sample_stability", "silhouette")
    return {
        "n_tasks": len(TASKS), "prompts": len(prompts), "exact_duplicates": 12, "near_duplicates": 5,
        "adjusted_rand_index": 0.987, "scores": [dict(zip(names, row, strict=True)) for row in tried],
    }  # fmt: skip


def make_rejects() -> list[Reject]:
    return [
        Reject(17, "not JSON (column 12: expecting ',' delimiter)", '{"prompt": "broken'),
        Reject(90, "not JSON (column 2: expecting property name enclosed in double quotes)", "{]"),
        Reject(203, "an array, not an object", '["What is it?"]'),
        Reject(204, "`prompt` is empty", '{"prompt": ""}'),
    ]


def make_records() -> list[ProfileRecord]:
    """Six drafters, each good at its own task, a general one, one good at nothing; `translate` gains nothing."""
    rng = random.Random(7)
    records = []
    common = {"concurrency": CONCURRENCY, "requests": 24, "tokens": 128, "verify": 0.041, "other": 0.03}
    for task in TASKS:
        records.append(record("none", task, 0, draft=0.0, **common))
        for drafter in ("general", *TASKS, "tiny"):
            rate = {"general": 0.66, "tiny": 0.2, task: 0.84}.get(drafter, 0.3) + rng.uniform(-0.03, 0.03)
            if task == "translate":
                rate = 0.12
            for steps in STEPS:
                cost = 0.004 * steps if drafter == "general" else 0.0022 * steps
                records.append(record(drafter, task, steps, rate=rate, draft=cost, **common))
    return records


def write_threshold(folder: Path, records: list[ProfileRecord], assignment: Assignment, counts: dict[str, int]) -> None:
    rng = np.random.default_rng(5)
    tasks = tuple(sorted(TASKS))
    labels = np.repeat(np.arange(len(tasks)), [counts[task] for task in tasks])
    scores = rng.normal(size=(len(labels), len(tasks))) + 5.2 * np.eye(len(tasks))[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    seconds, fallback = seconds_matrix(SpeedModel(records), assignment, tasks)
    traffic = np.array([assignment.traffic[task] for task in tasks])
    threshold = choose_threshold(probabilities, labels, seconds, fallback, traffic, tasks)
    folder.mkdir(exist_ok=True)
    write_json(folder / "threshold.json", threshold.as_dict())
    calibration = {"temperature": 0.7, "cross_validated_accuracy": 0.98, "wrapped_accuracy": 0.97, "ece": 0.0123}
    write_json(folder / "router.json", {"format": "sglang_hetero_spec.router", "calibration": calibration})


def write_learned(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    rng = random.Random(name)
    top = 2.3 if name == "general" else rng.uniform(2.6, 3.4)
    points = []
    for number in range(11):
        grown = 1.1 + (top - 1.1) * (1 - 0.6**number) + rng.uniform(-0.04, 0.04)
        loss = None if number == 0 else 3.0 * 0.8**number
        points.append(
            {
                "step": 40 * number,
                "tokens": 40_000 * number,
                "loss": loss,
                "seconds": 9.5 * number,
                "counts": counts_of(grown),
            }
        )
    write_lines(folder / "curve.jsonl", points)
    tasks = list(TASKS) if name == "general" else [name]
    made = {
        "format": "sglang_hetero_spec.align", "schema_version": 1, "task": None if name == "general" else name,
        "kind": "standalone", "start": {"source": "layers", "layers": [0, 5], "base": None}, "num_params": 4_200_000,
        "weights_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "used": {"loss": "forward_kl", "optimizer": "adamw"},
        "answers": {"train": 400, "dev": 40, "test": 40},
        "trained": {"steps": 400, "best_step": 360, "tokens": 400_000},
        "heldout": {task: {"before": counts_of(1.12), "after": counts_of(top - 0.1)} for task in tasks},
        "probes": [] if name != "general" else [
            {"start": "layers-0-1-forward_kl", "counts": counts_of(1.4), "cost": 0.2, "speed": 0.78},
            {"start": "layers-0-5-forward_kl", "counts": counts_of(1.6), "cost": 0.2, "speed": 0.89},
        ],
        "versions": {"python": "3.12.1", "torch": "2.9.1", "transformers": "4.57.1"}, "seconds": {"training": 95.1},
    }  # fmt: skip
    write_json(folder / "align.json", made)


def counts_of(accept_length: float) -> dict:
    steps = 1000
    right = round(steps * (accept_length - 1))
    by_position = [round(right * share) for share in (0.5, 0.3, 0.15, 0.05)]
    tokens = steps + sum(by_position)
    return {
        "requests": 40, "verify_steps": steps, "proposed_drafts": 4 * steps, "correct_by_position": by_position,
        "completion_tokens": tokens,
    }  # fmt: skip


def make_runs(assignment: Assignment) -> list[MeasuredRun]:
    rng = random.Random(11)
    runs = []
    single = assignment.best_single.drafter
    for task, expected in [(None, assignment.expected), *((item.task, item.expected) for item in assignment.tasks)]:
        speeds = {"none": expected.none_tokens_per_second, "standalone": expected.best_single_tokens_per_second}
        speeds["hetero"] = expected.tokens_per_second
        for number in (1, 2, 3):
            for arm, speed in speeds.items():
                tokens = 24 * 128
                runs.append(
                    MeasuredRun(
                        task=task,
                        arm=arm,
                        drafter=single if arm == "standalone" else None,
                        run=number,
                        concurrency=assignment.concurrency,
                        requests=24,
                        completion_tokens=tokens,
                        seconds=round(tokens / (speed * rng.uniform(0.93, 1.02)), 3),
                        predicted_tokens_per_second=speed,
                    )
                )
    return runs


def write_json_array(path: Path, value: list[dict]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    print(make_example(Path(sys.argv[1])))
