"""A sorted drafter that leaves by confidence against each of its fixed exits, per task and mixed.

    python -m benchmarks.sorted_speed --drafter FOLDER --split FOLDER [--target FOLDER] [--also NAME=FOLDER]
                                      [--target-params N] [--drafter-params N] [--concurrency 1,4]
                                      [--num-steps 4,8] [--prompts 4] [--mixed-only]

--drafter: made by `align` with `exits`. --split: held-out prompts of the target and its answers (prompts.jsonl and
heldout.jsonl, as a build has them), by which thresholds are chosen as `profile` does, for each concurrency; what is
measured are other prompts, the demo's held-out ones. --target: another one than the demo's. --also: another sorted
drafter beside it, for instance one that was made for this target alone, with thresholds of its own. --num-steps: chain
lengths; a fixed exit is measured with each of them, the sorted drafter with the one that it is expected to be fastest
with, by replay of held-out answers.

One HETERO server holds all of them. Every group of requests (as many as are in flight) is sent to one after the other,
in turn the first, so that a slow moment of the machine hits all alike. --target-params, --drafter-params: models that
say the same and cost more (demo/costly.py); figures taken so must say so. Exit code 1 if the sorted drafter is not
faster than its best fixed exit on the mixed workload, or slower on a task by more than two standard errors, or slower
than 0.97 of another sorted drafter (--also) on the mixed workload by more than these.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sglang_hetero_spec.build.profile.adaptive import tune
from sglang_hetero_spec.build.profile.bench import Pass, Request
from sglang_hetero_spec.build.profile.candidates import NOBODY, Candidate
from sglang_hetero_spec.build.profile.checked import write_pool
from sglang_hetero_spec.build.profile.engine import EngineSettings, Runner, served
from sglang_hetero_spec.build.profile.measure import ProfileOptions, load_workload
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.build.profile.workload import Ids
from sglang_hetero_spec.build.prompts import plain_prompt
from sglang_hetero_spec.build.sorted_file import SORTED
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.demo.costly import make_costly
from sglang_hetero_spec.demo.shipped import find_shipped

OURS, MIXED = "sorted", "(mixed)"
# Of the speed of a drafter that was made for one target alone.
ENOUGH = 0.97
FLAGS = ("--dtype", "float32")


@dataclass(frozen=True)
class Setup:
    """target, drafters (OURS first): as they are served. split: for thresholds. concurrency, prompts: of each task."""

    target: Path
    drafters: Mapping[str, Path]
    split: Path
    concurrency: tuple[int, ...]
    prompts: int
    rounds: int
    tokens: int
    num_steps: tuple[int, ...]
    mixed_only: bool

    @property
    def options(self) -> ProfileOptions:
        shapes = tuple(Settings(steps, 1, steps + 1) for steps in self.num_steps)
        return ProfileOptions(self.concurrency, self.prompts, self.tokens, shapes, passes=1, flags=FLAGS)


def candidates_of(setup: Setup, name: str) -> dict[tuple[str, int], Candidate]:
    """By name (a fixed exit of OURS has its own) and concurrency, in which thresholds differ."""
    with tempfile.TemporaryDirectory() as scratch:
        tuned = tune(
            setup.target, name, setup.drafters[name], setup.split, Path(scratch) / "profile.jsonl", setup.options
        )
    found: dict[tuple[str, int], Candidate] = {}
    for number, items in tuned.of_concurrency.items():
        for item in items:
            expected = ", ".join(f"{speed:.1f}" for speed in item.chosen.fixed)
            print(
                f"{name}, {number} in flight, {item.candidate.settings.num_steps} steps: thresholds"
                f" {item.chosen.thresholds}, expected {item.chosen.tokens_per_second:.1f} tokens/s, fixed {expected}",
                flush=True,
            )
        found[name, number] = tuned.best(number).candidate
        if name == OURS:
            found |= {(fixed_name(candidate), number): candidate for candidate in tuned.fixed}
    return found


def fixed_name(candidate: Candidate) -> str:
    return f"{candidate.drafter}x{candidate.settings.num_steps}"


class Tally:
    """tokens, seconds: [rounds, groups] of one arm."""

    def __init__(self, passes: Sequence[Sequence[Pass]]) -> None:
        self.tokens = np.array([[one.counts.completion_tokens for one in row] for row in passes], float)
        self.seconds = np.array([[one.seconds for one in row] for row in passes])
        steps = sum(one.counts.verify_steps for row in passes for one in row)
        self.accept_length = float(self.tokens.sum()) / max(1, steps)
        clocks = [one.clock for row in passes for one in row]
        forwards = max(1, sum(clock.verify_forwards for clock in clocks))
        self.draft_ms = 1000 * sum(clock.draft_seconds for clock in clocks) / forwards
        self.verify_ms = 1000 * sum(clock.verify_seconds for clock in clocks) / forwards

    @property
    def speed(self) -> float:
        return float(self.tokens.sum() / self.seconds.sum())

    def beside(self, other: Tally) -> tuple[float, float]:
        """Ratio of speeds, and its standard error over the groups, each of which both were sent in turn."""
        ratio = self.speed / other.speed
        logs = np.log(self.tokens / self.seconds) - np.log(other.tokens / other.seconds)
        weights = other.seconds / other.seconds.sum()
        error = np.sqrt((weights**2 * (logs - np.log(ratio)) ** 2).sum())
        return ratio, float(ratio * error)


def measure(
    setup: Setup, runner: Runner, arms: Sequence[tuple[str, str]], groups: Sequence[Sequence[Ids]], concurrency: int
) -> dict[str, Tally]:
    """arms: name and pool entry. Every group by every arm, one after the other, in turn the first."""
    passes: dict[str, list[list[Pass]]] = {name: [[] for _ in range(setup.rounds)] for name, _ in arms}
    turn = 0
    for number in range(setup.rounds):
        for group in groups:
            turn += 1
            for name, served_as in (*arms[turn % len(arms) :], *arms[: turn % len(arms)]):
                requests = [Request(ids, {"drafter": served_as}, setup.tokens) for ids in group]
                passes[name][number].append(runner.run(requests, concurrency))
    return {name: Tally(rows) for name, rows in passes.items()}


def show(task: str, concurrency: int, found: Mapping[str, Tally], fixed: Sequence[str], others: Sequence[str]) -> bool:
    """others: sorted drafters beside ours."""
    best = max(fixed, key=lambda name: found[name].speed)
    ratio, error = found[OURS].beside(found[best])
    ok = ratio > 1 if task == MIXED else ratio + 2 * error >= 1
    print(f"{'ok  ' if ok else 'MISS'} {concurrency:2} in flight, {task}: {ratio:.3f} +- {error:.3f} of {best}")
    for name, tally in found.items():
        ours, spread = found[OURS].beside(tally)
        print(
            f"       {name:14}{tally.speed:7.1f} tokens/s, accept length {tally.accept_length:.3f}, draft"
            f" {tally.draft_ms:6.2f} ms, verify {tally.verify_ms:6.1f} ms; sorted/it {ours:.3f} +- {spread:.3f}",
            flush=True,
        )
    for name in others if task == MIXED else ():
        ratio, error = found[OURS].beside(found[name])
        ok &= ratio + 2 * error >= ENOUGH
        print(f"       {ratio:.3f} +- {error:.3f} of {name}, {ENOUGH} is enough")
    return ok


@dataclass(frozen=True)
class Found:
    """held: whether every condition did. tallies: by task (MIXED among them) and concurrency, then by arm. candidates:
    by arm and concurrency."""

    held: bool
    tallies: Mapping[tuple[str, int], Mapping[str, Tally]]
    candidates: Mapping[tuple[str, int], Candidate]


def fixed_of(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{OURS}-exit")]


def run(setup: Setup) -> Found:
    candidates: dict[tuple[str, int], Candidate] = {}
    for name in setup.drafters:
        candidates |= candidates_of(setup, name)
    entries = {NOBODY.drafter: NOBODY, **{f"{name}.{number}": one for (name, number), one in candidates.items()}}
    shown = [plain_prompt(prompt.text, task=prompt.task) for prompt in find_shipped().prompts()]
    workload = load_workload(str(setup.target), shown, setup.options)
    held, tallies = True, {}
    with tempfile.TemporaryDirectory() as folder:
        write_pool(Path(folder), entries, str(setup.target))
        longest, log = workload.longest + setup.tokens, Path(folder) / "server.log"
        settings = EngineSettings(str(setup.target), longest, max(setup.concurrency), FLAGS, log)
        with served(Path(folder), settings) as runner:
            for concurrency in setup.concurrency:
                arms = [(name, f"{name}.{number}") for name, number in candidates if number == concurrency]
                fixed = fixed_of(name for name, _ in arms)
                others = [name for name in setup.drafters if name != OURS]
                arms.append((NOBODY.drafter, NOBODY.drafter))
                of_tasks = {
                    task: [ids[at : at + concurrency] for at in range(0, len(ids), concurrency)]
                    for task, ids in workload.prompts.items()
                }
                mixed = list(zip(*workload.prompts.values(), strict=False))
                flat = [ids for row in mixed for ids in row]
                of_tasks[MIXED] = [flat[at : at + concurrency] for at in range(0, len(flat), concurrency)]
                measure(replace(setup, rounds=1), runner, arms, of_tasks[MIXED][:2], concurrency)  # warms up
                for task, groups in of_tasks.items():
                    if task != MIXED and (setup.mixed_only or len(groups[0]) < concurrency):
                        continue
                    found = tallies[task, concurrency] = measure(setup, runner, arms, groups, concurrency)
                    held &= show(task, concurrency, found, fixed, others)
    return Found(held, tallies, candidates)


def costly(folder: Path, out: Path, num_params: int) -> Path:
    """A model that says the same and costs more; what is added behind a drafter's last exit is never loaded."""
    if not num_params:
        return folder
    made = make_costly(folder, out, num_params).path
    if (folder / SORTED).is_file():
        (made / SORTED).write_bytes((folder / SORTED).read_bytes())
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drafter", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--target", type=Path, default=find_shipped().target)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--target-params", type=int, default=100_000_000)
    parser.add_argument("--drafter-params", type=int, default=0)
    for name, default in (("concurrency", (1, 4)), ("num-steps", (4, 8))):
        parser.add_argument(f"--{name}", type=lambda text: tuple(map(int, text.split(","))), default=default)
    for name, default in (("prompts", 4), ("rounds", 1), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mixed-only", action="store_true")
    args = parser.parse_args(argv)
    given = {OURS: args.drafter, **{name: Path(path) for name, path in (named.split("=", 1) for named in args.also)}}
    with tempfile.TemporaryDirectory() as work:
        setup = Setup(
            target=costly(args.target, Path(work) / "target", args.target_params),
            drafters={name: costly(path, Path(work) / name, args.drafter_params) for name, path in given.items()},
            split=args.split,
            concurrency=args.concurrency,
            prompts=args.prompts,
            rounds=args.rounds,
            tokens=args.tokens,
            num_steps=args.num_steps,
            mixed_only=args.mixed_only,
        )
        return DONE if run(setup).held else FAILED


if __name__ == "__main__":
    sys.exit(main())
