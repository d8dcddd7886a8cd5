"""Everything that wants a GPU, in order of importance, within the time of one command on a lent machine.

    python -m benchmarks.gpu_run --plan                       # what it would do, and how long each step may take
    python -m benchmarks.gpu_run --out OUT --seconds 560      # all of it, until the time is up
    python -m benchmarks.gpu_run --out OUT --seconds 560      # again: goes on with what is not done yet
    python -m benchmarks.gpu_run --steps kernels,crossover    # some of it
    python -m benchmarks.gpu_run --dry --out OUT              # all that runs on a CPU, with tiny models; no figures

Each step has its box of time. One that does not fit into what is left is skipped and said so; one that fails or runs
out of its box is reported, what it found until then stays, and the next one runs. Every figure is in
OUT/gpu_run-TARGET.json as soon as it is known, and is not measured again while that file is there. The table comes
last.

For a GPU machine that reaches no registry, shared/gpu-host packs SGLang's stack; where commands may take ten minutes
only, run `--seconds 500` once after the other and carry that file along.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_context import DRY, Context, Row, Scale, Step
from benchmarks.gpu_models import TARGETS
from benchmarks.gpu_steps import STEPS

# A dry run's, and those of each target, lie apart: what is there already is not measured again.
RESULTS = "gpu_run-{of}.json"


@dataclass
class Clock:
    """seconds: of the whole run. margin: kept for the table and for engines that end."""

    seconds: float
    margin: float = 20.0
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - self.margin - (time.monotonic() - self.start)


class Results:
    """Rows by step and what they say, written whenever there is one more. done: steps that ended; switches: what they
    found out for the later ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[tuple[str, str], Row] = {}
        self.done: set[str] = set()
        self.switches: dict[str, str] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.done, self.switches = set(kept["done"]), kept["switches"]
            for row in kept["rows"]:
                self.rows[row["step"], row["what"]] = Row(**row)

    def add(self, row: Row) -> None:
        """In place of what an earlier run said of the same."""
        self.rows[row.step, row.what] = row
        self.write()

    def forget(self, step: Step) -> None:
        """That it was skipped or failed."""
        self.rows.pop((step.name, step.what), None)

    def write(self) -> None:
        rows = [vars(row) for row in self.rows.values()]
        kept = {"done": sorted(self.done), "switches": self.switches, "rows": rows}
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(kept, indent=1))
        draft.replace(self._path)


def chosen(names: str | None) -> list[Step]:
    if names is None:
        return list(STEPS)
    by_name = {step.name: step for step in STEPS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        sys.exit(f"gpu_run: no step is named {unknown[0]}; there are {', '.join(by_name)}.")
    return [by_name[name] for name in names.split(",")]


def run(
    steps: list[Step], context: Context, clock: Clock, results: Results, say: Callable[[str], None] = print
) -> list[Row]:
    """Rows of all steps, those of steps that did not run or failed among them, and of earlier runs."""
    context.switches |= results.switches
    for step in steps:
        if step.name in results.done:
            continue
        why_not = why_skipped(step, context, clock)
        if why_not is not None:
            results.add(Row(step.name, step.what, None, None, f"skipped: {why_not}"))
            continue
        say(f"== {step.name}: {step.what} ({clock.left:.0f} s left)")
        results.forget(step)
        box = clock.left if context.is_dry else min(clock.left, step.seconds)
        context.deadline = time.monotonic() + box
        try:
            for row in step.run(context):
                results.add(row)
                say(line_of(row))
            results.done.add(step.name)
        except Exception as error:  # the next step may still say something
            traceback.print_exc()
            note = f"failed: {type(error).__name__}: {error}"[:300]
            results.add(Row(step.name, step.what, None, None, note))
            context.drop_lost()
        results.switches |= context.switches
        results.write()
    return list(results.rows.values())


def why_skipped(step: Step, context: Context, clock: Clock) -> str | None:
    if step.needs_cuda and context.is_dry:
        return "it needs a CUDA device"
    if clock.left < (0 if context.is_dry else step.seconds):
        return f"{clock.left:.0f} s left of {step.seconds:.0f}"
    return None


def line_of(row: Row) -> str:
    value = "-" if row.value is None else f"{row.value:.3g}"
    wanted = "" if row.wanted is None else f"{row.wanted:g}"
    return f"{row.done_when:9} {row.what[:64]:64} {value:>7} {wanted:>6}  {row.verdict:7} {row.note}"


def table(rows: list[Row]) -> str:
    """Short: by the conditions that are to be met, what was only told and what is wrong behind them."""
    kept = sorted((row for row in rows if not row.is_detail), key=lambda row: row.done_when or "9")
    head = f"{'done when':9} {'what':64} {'value':>7} {'wanted':>6}  {'':7} note"
    return "\n".join([head, *map(line_of, kept)])


def machine() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found |= {"gpu": torch.cuda.get_device_name(), "free_gib": round(free / 2**30), "gib": round(total / 2**30)}
    return found


def print_plan(steps: list[Step], seconds: float) -> None:
    total = 0.0
    for step in steps:
        total += step.seconds
        print(f"{step.name:10} up to {step.seconds:4.0f} s  {step.what}")
    print(f"{'':10} up to {total:4.0f} s; the run stops after {seconds:.0f} s, whatever is left.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print the steps and stop; needs no GPU")
    parser.add_argument("--dry", action="store_true", help="tiny models on the CPU engine: does it run through")
    parser.add_argument("--steps", help="names with commas, in this order")
    parser.add_argument("--seconds", type=float, default=560, help="of the whole run (default 560)")
    parser.add_argument("--out", type=Path, default=Path("/tmp/gpu_run"), help="for figures, models, engines' logs")
    parser.add_argument("--target", default="medium", choices=list(TARGETS), help="size of the target")
    options = parser.parse_args()
    steps = chosen(options.steps)
    if options.plan:
        print_plan(steps, options.seconds)
        return
    found = machine()
    print(json.dumps(found))
    if "gpu" not in found and not options.dry:
        sys.exit("gpu_run: torch sees no CUDA device; --plan shows what would be done, --dry tries it without.")
    options.out.mkdir(parents=True, exist_ok=True)
    context = Context(options.out, DRY if options.dry else Scale(TARGETS[options.target]))
    results = Results(options.out / RESULTS.format(of="dry" if options.dry else options.target))
    try:
        rows = run(steps, context, Clock(options.seconds), results)
    finally:
        context.close()
    print(table(rows))


if __name__ == "__main__":
    main()
