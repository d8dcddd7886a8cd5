"""`hetero-spec build`: from a log of prompts and a target to a pool; the work is in `build.pipeline`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.demo import positive
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.pipeline import Built
    from sglang_hetero_spec.build.recipe import Recipe


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "build",
        help="from a log of prompts to a pool (resumes where it was left)",
        description="Finds the tasks in a log, has the target answer, aligns a drafter for each task, measures,"
        " assigns, fits the router and reports. Stopped at any moment, the same command goes on from there.",
        epilog="Flags of SGLang for its servers go behind `--`, such as: -- --mem-fraction-static 0.8 --tp-size 2",
    )
    parser.add_argument("--recipe", type=Path, metavar="YAML", help="all settings; flags override them")
    parser.add_argument("--target", metavar="T", help="the target's checkpoint")
    parser.add_argument("--prompts", metavar="FILE", help="log of prompts: JSONL, SGLang request logs, plain text")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pool")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--n-tasks", type=positive, metavar="N", help="number of tasks (default: found)")
    parser.add_argument("--max-drafters", type=positive, metavar="N", help="drafters that the pool may have")
    parser.add_argument("--jobs", type=positive, metavar="N", help="alignments at a time")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting, e.g. align.loss=reverse_kl"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be done, with estimates, and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("flags", nargs="*", metavar="-- SGLANG-FLAGS", help="for the servers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.flags and not args.flags[0].startswith("-"):
        raise UsageError(f"`{args.flags[0]}` is one argument too many; flags for SGLang go behind `--`.")
    from sglang_hetero_spec.build.pipeline import build
    from sglang_hetero_spec.build.plan import plan_build
    from sglang_hetero_spec.build.recipe import load_recipe
    from sglang_hetero_spec.build.regenerate.errors import RegenerateStopped
    from sglang_hetero_spec.serving.errors import ServingError
    from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted

    recipe = load_recipe(args.recipe, overrides(args))
    if args.plan:
        return show_plan(plan_build(recipe, args.out), args.json)
    try:
        with terminated_like_interrupted():
            built = build(recipe, args.out, say)
    except RegenerateStopped as error:
        say(f"hetero-spec: {error}")
        return FAILED
    except (ServingError, OSError) as error:
        what = disk_refused(error) if isinstance(error, OSError) else str(error)
        say(f"hetero-spec: {what} What is finished is kept: the same command goes on from there.")
        return FAILED
    show(recipe, built, args.json)
    return DONE


def disk_refused(error: OSError) -> str:
    """The sentence for a file that could not be read or written; what is no matter of the disk is raised again."""
    failed = error.args[0] if isinstance(error, shutil.Error) else None
    if isinstance(failed, list):
        _, path, reason = failed[0]
        reason = reason.rpartition("] ")[2].partition(":")[0]
    elif error.errno is None or isinstance(error, ConnectionError):
        raise error
    else:
        path, reason = error.filename or "A file", error.strerror
    return f"{path} cannot be read or written ({reason}); free some space, or check the folder and its permissions."


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as dotted settings of the recipe."""
    import yaml

    named = {
        "target": args.target, "prompts": args.prompts, "seed": args.seed, "partition.n_tasks": args.n_tasks,
        "assign.max_drafters": args.max_drafters, "jobs": args.jobs, "flags": args.flags or None,
    }  # fmt: skip
    found = {key: value for key, value in named.items() if value is not None}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item} is not KEY=VALUE; write e.g. --set profile.passes=3.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {item} has a value that is not YAML; quote it.") from None
    return found


def show_plan(steps: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        print_json(steps)
        return DONE
    from rich.table import Table

    table = Table(title="What this build would do", title_justify="left")
    headings = ("stage", "state", "work", "about", "disk")
    for heading in headings:
        table.add_column(heading)
    for step in steps:
        table.add_row(*(str(step[key]) for key in headings))
    console().print(table)
    return DONE


def show(recipe: Recipe, built: Built, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "pool": str(built.pool.root), "seconds": built.seconds,
                "assignment": built.assignment.model_dump(mode="json"),
                "not_made": [vars(item) for item in built.not_made],
            }
        )  # fmt: skip
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(str(built.pool.root))}", title_justify="left")
    for heading in ("task", "drafter", "steps", "accept length", "expected over none", "over the best single drafter"):
        table.add_column(heading, justify="left" if heading in ("task", "drafter") else "right")
    for task in built.assignment.tasks:
        gain = task.expected
        table.add_row(
            escape(task.task), escape(task.drafter), str(task.num_steps), f"{task.accept_length:.2f}",
            f"{gain.gain_over_none:.2f}x", f"{gain.gain_over_best_single:.2f}x",
        )  # fmt: skip
    out, mix = console(), built.assignment.expected
    out.print(table)
    out.print(
        f"All tasks mixed, {built.assignment.concurrency} in flight: expected {mix.gain_over_none:.2f}x no speculation,"
        f" {mix.gain_over_best_single:.2f}x the best single drafter. {built.seconds / 60:.1f} minutes."
    )
    for item in built.not_made:
        say(f"Drafter `{item.name}` was not made: {item.reason}")
    out.print(escape(f"hetero-spec serve --model-path {recipe.target} --speculative-algorithm HETERO"
                     f" --speculative-draft-model-path {built.pool.root}"))  # fmt: skip
