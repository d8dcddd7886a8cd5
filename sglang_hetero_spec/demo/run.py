"""`hetero-spec demo`: three ways to serve the shipped target, compared on this machine."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.commands.checked import checked_pool
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, console, print_json, say
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo import measure, summary, table, two_figures, why
from sglang_hetero_spec.demo.arms import plan_arms, plan_servers
from sglang_hetero_spec.demo.costly import CostlyTarget, make_costly
from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.machine import Machine, describe
from sglang_hetero_spec.demo.options import DemoOptions, from_arguments
from sglang_hetero_spec.demo.shipped import Prompt, Shipped, export, find_shipped, interleave
from sglang_hetero_spec.demo.summary import DEFINITIONS, Results
from sglang_hetero_spec.pool import Pool, checkpoint_size
from sglang_hetero_spec.serving.errors import ServingError
from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted


@dataclass(frozen=True)
class Outcome:
    """Everything that a run of the demo found. costly: None where the target was served as it ships. targets: figures
    that ship with it."""

    options: DemoOptions
    machine: Machine
    pool: Pool
    prompts: list[Prompt]
    costly: CostlyTarget | None
    num_params: int
    results: Results
    seconds: float
    targets: two_figures.TwoTargets | None = None

    def cost_note(self) -> str:
        """One sentence about the target, to stand beside every figure."""
        if self.costly is None:
            return f"Target: {_millions(self.num_params)} parameters, as shipped; its cost was not raised."
        return cost_note(self.costly)


def cost_note(costly: CostlyTarget) -> str:
    """What was done to a target, to stand beside its speeds."""
    return (
        f"Target: {_millions(costly.source_params)} parameters, made as costly as one of"
        f" {_millions(costly.num_params)} without changing its function (identity blocks:"
        f" {costly.layers} layers in all, the added ones and all added width multiply by zero weights),"
        " so that speculation has something to win on a CPU; every speed here is of that target."
    )


def main(args: argparse.Namespace) -> int:
    """The command. args: as parsed by commands/demo.py."""
    try:
        shipped = find_shipped()
        if args.export is not None:
            return _export(shipped, Path(args.export), args.json)
        with terminated_like_interrupted(), Reporter() as reporter:
            outcome = run(shipped, from_arguments(args), reporter)
    except ServingError as error:
        say(f"hetero-spec: {error}")
        return FAILED
    if args.json:
        print_json(as_dict(outcome))
    else:
        _print(outcome)
    return DONE


def run(shipped: Shipped, options: DemoOptions, reporter: Reporter, one_drafter: bool = False) -> Outcome:
    """Serve and measure. one_drafter: also HETERO with the general drafter for every request."""
    pool = checked_pool(str(shipped.pool), str(shipped.target))
    prompts, warm_up = interleave(shipped.prompts(), options.num_prompts)
    machine = describe(options)
    arms = plan_arms(pool, options, one_drafter)
    reporter.line(f"Machine: {machine.sentence()}.")
    costly, target = _target(shipped, options, reporter)
    num_params = costly.num_params if costly else checkpoint_size(target).num_params
    with tempfile.TemporaryDirectory(prefix="hetero-spec-demo-") as logs:
        results = measure.run(
            plan_servers(target, pool, options),
            arms,
            measure.Workload(prompts, warm_up),
            options,
            num_params=num_params,
            logs=Path(logs),
            reporter=reporter,
        )
    targets = two_figures.shipped_figures(shipped)
    return Outcome(options, machine, pool, prompts, costly, num_params, results, reporter.seconds, targets)


def _target(shipped: Shipped, options: DemoOptions, reporter: Reporter) -> tuple[CostlyTarget | None, Path]:
    if not options.target_params:
        return None, shipped.target
    costly = costly_target(shipped.target, options.target_params, reporter)
    return costly, costly.path


def costly_target(source: Path, num_params: int, reporter: Reporter) -> CostlyTarget:
    """`source` made as costly as a target of `num_params`, once for all runs of that number."""
    out = cache_dir() / f"target-{num_params}"
    if not out.exists():
        reporter.line(f"Making a target of {_millions(num_params)} parameters in {out} (once) ...")
    try:
        return make_costly(source, out, num_params)
    except ValueError as error:
        raise UsageError(f"--target-params: {error}.") from None
    except OSError as error:
        raise DemoError(
            f"The costly target cannot be written to {out} ({error.strerror or error}); free"
            f" {2 * num_params / 1e9:.1f} GB there, set XDG_CACHE_HOME to another disk, or try"
            " --target-params 0."
        ) from None


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sglang-hetero-spec" / "demo"


def _export(shipped: Shipped, out: Path, as_json: bool) -> int:
    made = export(shipped, out)
    small = {"target": str(made.small_target), "pool": str(made.small_pool)}
    if as_json:
        print_json({"target": str(made.target), "pool": str(made.pool), "small": small})
        return DONE
    print(f"Wrote {made.target} and {made.pool}; serve them with\n  {_serve(made.target, made.pool)}")
    print(
        f"A smaller target is in {small['target']}, with a pool that shares a drafter with the first one (keep both"
        f" where they are):\n  {_serve(made.small_target, made.small_pool)}"
    )
    return DONE


def _serve(target: Path, pool: Path) -> str:
    return (
        f"hetero-spec serve --model-path {target} --speculative-algorithm HETERO --speculative-draft-model-path {pool}"
    )


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """The whole run as one JSON object."""
    return {
        "format": "sglang_hetero_spec.demo",
        "schema_version": 1,
        "machine": asdict(outcome.machine),
        "options": asdict(outcome.options),
        "target": {
            "num_params": outcome.num_params,
            "cost_raised": outcome.costly is not None,
            "shipped_params": outcome.costly.source_params if outcome.costly else outcome.num_params,
            "note": outcome.cost_note(),
        },
        "general_drafter": outcome.pool.fallback_drafter,
        "definitions": DEFINITIONS,
        "two_targets": outcome.targets and outcome.targets.as_dict(),
        "drafters": [reason.as_dict() for reason in why.reasons(outcome.pool)],
        **summary.as_dict(outcome.results),
        "samples": [
            {"task": a.task, "prompt": outcome.prompts[a.prompt].text, "answer": a.text, "drafter": a.drafter}
            for a in table.choose_samples(outcome.results)
        ],
        "seconds": outcome.seconds,
    }


def _print(outcome: Outcome) -> None:
    from rich.markup import escape

    out = console()
    names = {task.id: task.name for task in outcome.pool.tasks}
    out.print()
    found = why.reasons(outcome.pool)
    if found:
        out.print(why.why_table(found, names))
    if outcome.targets is not None:
        out.print(two_figures.two_table(outcome.targets))
        out.print(escape(outcome.targets.note()))
        out.print()
    table.print_results(out, outcome.results, names, outcome.pool.fallback_drafter)
    for line in (
        *table.legend(outcome.options.passes, len(outcome.prompts)),
        outcome.cost_note(),
        f"Machine: {outcome.machine.sentence()}.",
    ):
        out.print(escape(line))
    out.print("\n[bold]Three of the answers, as HETERO served them[/]")
    for answer in table.choose_samples(outcome.results):
        out.print(table.sample_panel(answer, outcome.prompts, names))
    out.print(
        f"Done in {outcome.seconds / 60:.1f} minutes. Your own server: hetero-spec demo --export DIR, then"
        " hetero-spec serve (it prints the whole command)."
    )


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number < 10**7 else f"{number / 1e6:.0f}M"
