"""A sorted drafter that leaves by confidence against each of its fixed exits, per task and mixed.

    python -m benchmarks.sorted_speed --drafter FOLDER [--target FOLDER] [--thresholds 0.6,0.5 | --split FOLDER]
                                      [--drafter-params N] [--also NAME=FOLDER] [OPTIONS OF hetero-spec demo]

FOLDER is made by `align` with `exits`. One plain server and one HETERO server with all of them, passes alternating.
Thresholds that are not given are chosen as `profile` does, from a short profile of the fixed exits at the first
--concurrency; --split: held-out prompts of the target and its answers, prompts.jsonl and heldout.jsonl of a build.
--drafter-params widens the drafter's layers without changing what it says (demo/costly.py), so that a layer costs
something; figures taken so must say so. --target: another one than the demo's. --also: another sorted drafter, for a
target that it was made for, with thresholds of its own. Exit code 1 if the sorted drafter is slower than the best fixed
exit on any task (by more than a pass differs from the next), or not faster on the mixed workload.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.one_pool import by_hand, measure_arms, output_line
from sglang_hetero_spec.build.profile.candidates import find_candidates
from sglang_hetero_spec.build.profile.exits import by_confidence
from sglang_hetero_spec.build.profile.measure import ProfileOptions, load_workload, profile
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.build.prompts import read_prompts
from sglang_hetero_spec.build.sorted_file import SORTED, read_exits
from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo.arms import HETERO, Arm
from sglang_hetero_spec.demo.costly import make_costly
from sglang_hetero_spec.demo.options import DemoOptions, from_arguments
from sglang_hetero_spec.demo.run import _target
from sglang_hetero_spec.demo.shipped import Shipped, find_shipped
from sglang_hetero_spec.demo.summary import Results

DEFAULTS = ("--num-prompts", "48", "--passes", "3", "--concurrency", "1,4", "--target-params", "200M")
SORTED_ARM = "sorted"
# What a pass differs from the next one by.
NOISE = 0.01


def entry(name: str, folder: Path, exits: Sequence[int], thresholds: Sequence[float], num_steps: int) -> dict[str, Any]:
    shape = {"num_steps": num_steps, "exits": list(exits), "thresholds": list(thresholds)}
    return {"name": name, "kind": "sorted", "path": str(folder), "external": True, **shape}


def chosen(drafter: Path, target: Path, split: Path, options: DemoOptions, num_steps: int) -> tuple[float, ...]:
    """As `profile` does it for one concurrency."""
    profiled = ProfileOptions(
        concurrency=options.concurrency[:1],
        num_prompts=4,
        max_new_tokens=options.tokens,
        passes=1,
        shapes=(Settings(num_steps, 1, num_steps + 1),),
        flags=("--dtype", options.dtype, "--max-total-tokens", "16384"),
    )
    prompts = read_prompts(split / "prompts.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        records = profile(target, [f"d={drafter}"], prompts, Path(folder) / "profile.jsonl", profiled).records
    workload = load_workload(str(target), prompts, replace(profiled, num_prompts=100))
    texts = [ids for of_task in workload.prompts.values() for ids in of_task]
    candidates = find_candidates([f"d={drafter}"], profiled.shapes)
    (best,) = by_confidence(candidates, records, texts, split / "heldout.jsonl", profiled.concurrency)
    expected = ", ".join(f"{best.chosen.tokens_per_second / fixed:.3f}" for fixed in best.chosen.fixed)
    print(f"expected of {best.chosen.thresholds}: {expected} times the fixed exits", flush=True)
    return best.chosen.thresholds


def show(results: Results, fixed: Sequence[str], others: Sequence[str]) -> bool:
    held = True
    for concurrency in results.concurrencies:
        ratio = {arm: results.ratio(SORTED_ARM, arm, concurrency) for arm in (*fixed, *others)}
        for arm in (SORTED_ARM, *fixed, *others):
            speed, length = results.speed(arm, concurrency), results.tally(arm, concurrency).accept_length
            assert speed is not None
            beside = ratio.get(arm)
            note = (
                ""
                if beside is None
                else f"; sorted/it {beside.overall:.3f} ({beside.smallest:.3f}-{beside.largest:.3f})"
            )
            print(
                f"{concurrency:2} in flight, mixed: {arm:12} {speed.overall:7.1f} tokens/s, length {length:.3f}{note}"
            )
        best = max(fixed, key=lambda arm: results.speed(arm, concurrency).overall)  # type: ignore[union-attr]
        held = held and ratio[best].overall > 1  # type: ignore[union-attr]
        for task in (*results.tasks,):
            speeds = {arm: results.tally(arm, concurrency, task).request_speed for arm in (SORTED_ARM, *fixed, *others)}
            lengths = [f"{results.tally(arm, concurrency, task).accept_length:.2f}" for arm in speeds]
            highest = max(speeds[arm] for arm in fixed)
            ok = speeds[SORTED_ARM] >= highest * (1 - NOISE)
            held = held and ok
            figures = ", ".join(f"{arm} {speed:.1f}" for arm, speed in speeds.items())
            print(f"   {'ok  ' if ok else 'MISS'} {task:10} {speeds[SORTED_ARM] / highest:.3f} of the best fixed exit:")
            print(f"        {figures}; lengths {' '.join(lengths)}")
    print(output_line(results))
    return held


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drafter", type=Path, required=True)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--thresholds")
    parser.add_argument("--split", type=Path)
    parser.add_argument("--drafter-params", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--also", action="append", default=[])
    args, rest = parser.parse_known_args(argv)
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    exits = read_exits(args.drafter)
    assert exits is not None, f"{args.drafter} has no {SORTED}"
    with tempfile.TemporaryDirectory() as work:
        shipped = shipped_with(args.target, Path(work))
        given = {SORTED_ARM: args.drafter, **dict(named.split("=", 1) for named in args.also)}
        folders = {name: widened(Path(path), Path(work) / name, args.drafter_params) for name, path in given.items()}
        thresholds: dict[str, tuple[float, ...]] = {}
        with Reporter() as reporter:
            target = _target(shipped, options, reporter)[1]
        for name, folder in folders.items():
            if args.thresholds is not None:
                thresholds[name] = tuple(map(float, args.thresholds.split(",")))
            else:
                thresholds[name] = chosen(folder, target, args.split, options, args.num_steps)
            print(f"{name}: exits {exits}, thresholds {thresholds[name]}", flush=True)
        fixed = [f"exit-{layers}" for layers in exits]
        drafters = [entry(name, folder, exits, thresholds[name], args.num_steps) for name, folder in folders.items()]
        drafters += [
            entry(name, folders[SORTED_ARM], (layers,), (), args.num_steps)
            for name, layers in zip(fixed, exits, strict=True)
        ]
        arms = [Arm(drafter["name"], HETERO, override={"drafter": drafter["name"]}) for drafter in drafters]
        results = measure_arms(by_hand(drafters, SORTED_ARM), arms, options, shipped)
    return DONE if show(results, fixed, [name for name in folders if name != SORTED_ARM]) else FAILED


def shipped_with(target: Path | None, work: Path) -> Shipped:
    """The demo's files, with another target where there is one."""
    shipped = find_shipped()
    if target is None:
        return shipped
    root = work / "shipped"
    root.mkdir()
    for name, path in {"target": target, "pool": shipped.pool, "heldout.jsonl": shipped.root / "heldout.jsonl"}.items():
        (root / name).symlink_to(path.resolve())
    return Shipped(root)


def widened(folder: Path, out: Path, num_params: int) -> Path:
    """The drafter, or one that says the same and costs more; the layers added behind it are never loaded."""
    if not num_params:
        return folder
    made = make_costly(folder, out, num_params).path
    (made / SORTED).write_bytes((folder / SORTED).read_bytes())
    return made


if __name__ == "__main__":
    sys.exit(main())
