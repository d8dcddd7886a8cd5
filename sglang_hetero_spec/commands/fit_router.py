"""`hetero-spec fit-router`: the classifier of prompts, and the confidence below which the fallback serves."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.assign.fit_router import PricedRouter


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "fit-router",
        help="fit the router on the tasks' prompts, with the threshold that pays",
        description="Fits and calibrates the router, and chooses min_confidence by what a wrong route costs according"
        " to the profile.",
    )
    parser.add_argument("--prompts", metavar="FILE", required=True, help="prompts.jsonl of `hetero-spec partition`")
    parser.add_argument("--assignment", metavar="FILE", required=True, help="assignment.json of `hetero-spec assign`")
    parser.add_argument("--profile", metavar="FILE", required=True, help="profile.jsonl of `hetero-spec profile`")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for router.json, its weights, threshold.json"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the folds (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.build.assign.fit_router import fit_priced_router
    from sglang_hetero_spec.build.assign.result import read_assignment
    from sglang_hetero_spec.build.profile.records import read_profile
    from sglang_hetero_spec.build.prompts import read_prompts

    router = fit_priced_router(
        read_prompts(args.prompts), read_assignment(args.assignment), read_profile(args.profile), random_state=args.seed
    )
    router.save(args.out)
    if args.json:
        print_json(as_dict(router))
    else:
        _print(router)
    if router.num_outliers:
        say(f"{router.num_outliers} prompts without a task were left out.")
    return DONE


def as_dict(router: PricedRouter) -> dict[str, Any]:
    """The result for machines, without the curve, which is in threshold.json."""
    fitted, threshold = router.fitted, router.threshold
    return {
        "classes": list(fitted.router.classes),
        "num_prompts": fitted.num_prompts,
        "num_outliers": router.num_outliers,
        "cross_validated_accuracy": fitted.cross_validated_accuracy,
        "wrapped_accuracy": fitted.wrapped_accuracy,
        "ece": fitted.ece,
        "confusion": fitted.confusion,
        "min_confidence": threshold.min_confidence,
        "chosen_tokens_per_second": threshold.chosen_tokens_per_second,
        "oracle_tokens_per_second": threshold.oracle_tokens_per_second,
        "always_routed_tokens_per_second": threshold.always_routed_tokens_per_second,
        "fallback_tokens_per_second": threshold.fallback_tokens_per_second,
        "second_below": router.second.second_below,
    }


def _print(router: PricedRouter) -> None:
    fitted, threshold = router.fitted, router.threshold
    low, high = threshold.plateau
    out = console()
    out.print(
        f"{fitted.num_prompts} prompts, {len(fitted.router.classes)} tasks; right out of fold:"
        f" {fitted.cross_validated_accuracy:.1%}, in a chat template {fitted.wrapped_accuracy:.1%}; calibration error"
        f" {fitted.ece:.3f}."
    )
    out.print(f"min_confidence {threshold.min_confidence:g} (as good: {low:.3f} to {high:.3f}). Expected tokens/s:")
    for words, speed in (
        ("with it", threshold.chosen_tokens_per_second),
        ("if every route were right", threshold.oracle_tokens_per_second),
        ("if every prompt were routed", threshold.always_routed_tokens_per_second),
        ("if the fallback served all", threshold.fallback_tokens_per_second),
    ):
        out.print(f"  {words:30}{speed:10.1f}")
    second = router.second
    if second.second_below is None:
        out.print("A second drafter never pays.")
    else:
        out.print(
            f"Below a confidence of {second.second_below:g} a second drafter pays:"
            f" {second.tokens_per_second:.1f} tokens/s instead of {second.alone_tokens_per_second:.1f}."
        )
