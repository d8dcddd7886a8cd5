"""`hetero-spec align`: distil a drafter from the target's own answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.align import AlignRequest, AlignResult


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "align",
        help="distil a drafter from the target's own answers",
        description="Trains one drafter for one task, or a general one for all, and writes a folder that transformers"
        " and SGLang load. Run again after an interruption, it goes on and ends with the same weights. Several GPUs:"
        " accelerate launch -m sglang_hetero_spec.build.align with the same flags.",
    )
    parser.add_argument("--target", metavar="T", required=True, help="the target: a folder, or a name on the hub")
    parser.add_argument("--answers", metavar="F", required=True, type=Path, help="answers.jsonl of `regenerate`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", metavar="ID", help="the task to learn")
    which.add_argument("--general", action="store_true", help="all tasks, with the tokens of all task drafters")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="folder of the drafter")
    parser.add_argument("--base", metavar="D", help="drafter to go on from (default: made from the target's layers)")
    parser.add_argument(
        "--tokenizer", metavar="D", help="the fresh drafter's own tokenizer, with `shape` (default: the target's)"
    )
    parser.add_argument("--config", metavar="YAML", type=Path, help="settings; flags override them")
    parser.add_argument("--prompts", metavar="F", type=Path, help="prompts.jsonl of `partition`, for the tasks")
    parser.add_argument("--heldout", metavar="F", type=Path, help="answers to hold out (default: a share of --answers)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="folder for what is kept of the target, shareable")
    parser.add_argument("--loss", choices=("forward_kl", "reverse_kl", "tvd++", "ce", "auto"))
    parser.add_argument(
        "--vocab", choices=("auto", "tli", "slem", "slrs"), help="how a vocabulary of its own will serve"
    )
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens to train on, per task")
    parser.add_argument("--epochs", type=float, metavar="X", help="passes over the answers, without --tokens")
    parser.add_argument("--optimizer", choices=("adamw", "muon"))
    parser.add_argument("--learning-rate", type=float, metavar="X")
    parser.add_argument("--batch-tokens", type=int, metavar="N", help="tokens of a batch, padding included")
    parser.add_argument("--layers", metavar="N|I,J,..|auto", help="how many of the target's layers to keep, or which")
    parser.add_argument("--lora", type=int, metavar="R", help="train a LoRA adapter of rank R on --base")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=None, help="compute in bfloat16")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of align.yaml, e.g. lora.alpha=64.0"
    )
    parser.add_argument("--json", action="store_true", help="print align.json as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    request = request_of(args)
    from sglang_hetero_spec.build.align import align
    from sglang_hetero_spec.build.align.errors import AlignStopped

    try:
        result = align(request, say)
    except AlignStopped as error:
        say(f"hetero-spec: {error}")
        return FAILED
    if args.json:
        print_json(result.made)
    else:
        _print_table(result)
    return DONE


def request_of(args: argparse.Namespace) -> AlignRequest:
    """The flags as `align()` takes them."""
    from sglang_hetero_spec.build.align import AlignRequest, load_settings

    tasks = None
    if args.prompts is not None:
        from sglang_hetero_spec.build.prompts import read_prompts

        tasks = {prompt.id: prompt.task for prompt in read_prompts(args.prompts)}
    return AlignRequest(
        target=args.target,
        answers=args.answers,
        out=args.out,
        task=args.task,
        base=args.base,
        settings=load_settings(args.config, _overrides(args)),
        heldout=args.heldout,
        tasks=tasks,
        cache=args.cache,
        tokenizer=args.tokenizer,
    )


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    names = ("loss", "vocab", "tokens", "epochs", "optimizer", "learning_rate", "batch_tokens", "seed", "bf16")
    found = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.layers is not None:
        found["layers"] = _layers(args.layers)
    if args.lora is not None:
        found["lora.r"] = args.lora
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item} is not KEY=VALUE; write e.g. --set patience=0.")
        found[key] = _value(item, value)
    return found


def _layers(text: str) -> int | list[int] | str:
    if text == "auto":
        return text
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--layers {text} is neither a number, nor numbers with commas, nor auto.")
    return int(text) if len(parts) == 1 else [int(part) for part in parts if part]


def _value(item: str, text: str) -> Any:
    import yaml  # already there with transformers

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {item} has a value that is not YAML; quote it.") from None


def _print_table(result: AlignResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(str(result.out))}", title_justify="left")
    for heading in ("task", "held-out answers", "accept rate before", "after", "accept length before", "after"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for task, figures in result.made["heldout"].items():
        before, after = figures["before"], figures["after"]
        table.add_row(
            escape(task), str(after["requests"]), f"{_rate(before):.3f}", f"{_rate(after):.3f}",
            f"{_length(before):.2f}", f"{_length(after):.2f}",
        )  # fmt: skip
    out = console()
    out.print(table)
    trained = result.made["trained"]
    if result.made["counted_in"] != "target tokens":
        out.print(
            f"Counted in {result.made['counted_in']}, not in the target's; a verify step brought"
            f" {_bytes_per_step(result.made):.1f} bytes of text, which can be compared with other drafters."
        )
    out.print(f"{trained['steps']} of {trained['planned_steps']} steps, best at {trained['best_step']}.")


def _bytes_per_step(made: dict[str, Any]) -> float:
    steps = sum(figures["after"]["verify_steps"] for figures in made["heldout"].values())
    return sum(made["heldout_bytes"].values()) / max(1, steps)


def _rate(counts: dict[str, Any]) -> float:
    return sum(counts["correct_by_position"]) / max(1, counts["proposed_drafts"])


def _length(counts: dict[str, Any]) -> float:
    return counts["completion_tokens"] / max(1, counts["verify_steps"])
