"""Everything that wants a GPU, in order of importance, within the time of one command on a lent machine.

    python -m benchmarks.gpu_run --plan                       # what it would do, and how long each step may take
    python -m benchmarks.gpu_run --out $OUT --seconds 560     # all of it, until the time is up
    python -m benchmarks.gpu_run --steps kernels,crossover    # some of it

A step that does not fit into what is left of the time is skipped and said so; a step that fails is reported and the
next one runs. The table comes last, the whole of it also as JSON in --out. On a host without registries: unpack the kit
(gpu-host/README.md), then `. /tmp/site/env.sh`.
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

from benchmarks.gpu_steps import STEPS, Context, Row, Step


@dataclass
class Clock:
    """seconds: of the whole run. margin: kept for the table and for engines that end."""

    seconds: float
    margin: float = 20.0
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - self.margin - (time.monotonic() - self.start)


def chosen(names: str | None) -> list[Step]:
    if names is None:
        return list(STEPS)
    by_name = {step.name: step for step in STEPS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        sys.exit(f"gpu_run: no step is named {unknown[0]}; there are {', '.join(by_name)}.")
    return [by_name[name] for name in names.split(",")]


def run(steps: list[Step], context: Context, clock: Clock, say: Callable[[str], None] = print) -> list[Row]:
    """Rows of all steps, those of steps that did not run or failed among them."""
    rows: list[Row] = []
    for step in steps:
        if clock.left < step.seconds:
            rows.append(Row(step.name, step.what, None, None, f"skipped: {clock.left:.0f} s left of {step.seconds}"))
            continue
        say(f"== {step.name}: {step.what} ({clock.left:.0f} s left)")
        context.deadline = time.monotonic() + clock.left
        try:
            rows += step.run(context)
        except Exception as error:  # the next step may still say something
            traceback.print_exc()
            rows.append(Row(step.name, step.what, None, None, f"failed: {type(error).__name__}: {error}"[:200]))
        write(context.out, rows)
    return rows


def write(out: Path, rows: list[Row]) -> None:
    (out / "gpu_run.json").write_text(json.dumps([vars(row) for row in rows], indent=1))


def table(rows: list[Row]) -> str:
    """verdict: reached or not where there is something to reach."""
    lines = [f"{'step':10} {'what':58} {'value':>9} {'wanted':>8}  note"]
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.3g}"
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        lines.append(f"{row.step:10} {row.what[:58]:58} {value:>9} {wanted:>8}  {row.verdict}{row.note}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found |= {"gpu": torch.cuda.get_device_name(), "free_gib": round(free / 2**30), "gib": round(total / 2**30)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print the steps and stop; needs no GPU")
    parser.add_argument("--steps", help="names with commas, in this order")
    parser.add_argument("--seconds", type=float, default=560, help="of the whole run (default 560)")
    parser.add_argument("--out", type=Path, default=Path("/tmp/gpu_run"), help="for figures and the engines' logs")
    parser.add_argument("--target", default="medium", choices=["small", "medium", "large"], help="size of the target")
    options = parser.parse_args()
    steps = chosen(options.steps)
    if options.plan:
        total = 0.0
        for step in steps:
            total += step.seconds
            print(f"{step.name:10} up to {step.seconds:4.0f} s  {step.what}")
        print(f"{'':10} up to {total:4.0f} s; the run stops after {options.seconds:.0f} s, whatever is left.")
        return
    found = machine()
    print(json.dumps(found))
    if "gpu" not in found:
        sys.exit("gpu_run: torch sees no CUDA device; --plan shows what would be done.")
    options.out.mkdir(parents=True, exist_ok=True)
    context = Context(out=options.out, target=options.target)
    try:
        rows = run(steps, context, Clock(options.seconds))
    finally:
        context.close()
    print(table(rows))


if __name__ == "__main__":
    main()
