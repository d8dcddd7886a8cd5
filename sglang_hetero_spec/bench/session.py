"""One call of `hetero-spec bench`: a new run, or the rest of one that was broken off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.metadata import read_metadata, refuse_other, write_metadata
from sglang_hetero_spec.bench.options import BenchOptions
from sglang_hetero_spec.bench.plan import RunPlan, make_plan
from sglang_hetero_spec.bench.plan import metadata as new_metadata
from sglang_hetero_spec.bench.records import METADATA_NAME
from sglang_hetero_spec.bench.run import LOGS_NAME, Run
from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.files import remedy

LOCK = "bench"


def run_bench(options: BenchOptions, command: Sequence[str], reporter: Reporter) -> Path:
    """The folder of the run, complete. HeteroError, UsageError or PoolError for what cannot be run, ServingError where
    a server failed; what was measured is kept, and the same call goes on."""
    check_folder(options.out)
    plan = make_plan(options, reporter)
    for note in plan.notes:
        reporter.line(note)
    found = new_metadata(plan, command)
    reporter.line(_intent(plan))
    with directory_lock(options.out, LOCK, f"hetero-spec bench --out {options.out}"):
        run = Run(plan, _begin(plan, found), reporter)
        done = plan.num_requests // len(plan.work.items) - len(run.todo)
        if done:
            reporter.line(f"{done} blocks were measured before, {len(run.todo)} are left.")
        if run.todo:
            run.finish_blocks()
    return options.out


def check_folder(out: Path) -> None:
    """BenchError where it holds something that is no run. It is made when the run begins."""
    if not out.exists():
        return
    try:
        found = sorted(path.name for path in out.iterdir() if path.name != f".{LOCK}.lock")
    except OSError as error:
        raise BenchError(f"--out {out}: cannot be used ({error.strerror or error}); {remedy(error)}.") from None
    if found and METADATA_NAME not in found:
        raise BenchError(
            f"--out {out} has other files (`{found[0]}`) and no run; name a new folder, such as {out / 'run1'}."
        )


def _begin(plan: RunPlan, found: dict[str, Any]) -> dict[str, Any]:
    """The metadata to go on with."""
    out = plan.options.out
    (out / LOGS_NAME).mkdir(exist_ok=True)
    if (out / METADATA_NAME).exists():
        before = read_metadata(out)
        refuse_other(out, before, found)
        clean = (
            None
            if None in (before["clean_tree"], found["clean_tree"])
            else before["clean_tree"] and found["clean_tree"]
        )
        return before | {"clean_tree": clean, "groups": found["groups"], "notes": found["notes"]}
    write_metadata(out, found)
    return found


def _intent(plan: RunPlan) -> str:
    settings = ", ".join(setting.words for setting in plan.options.settings)
    arms = ", ".join(arm.name for arm in plan.arms)
    return (
        f"{len(plan.work.items)} prompts, {settings}, {plan.options.repetitions} repetitions, {len(plan.arms)} arms"
        f" ({arms}); {plan.options.out} grows as they are measured."
    )
