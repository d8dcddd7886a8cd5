"""Two drafters for one request against each of them alone, task by task and where the router is not sure.

    python -m benchmarks.pair_speed [OPTIONS OF hetero-spec demo]

The demo's pool, its merged trees wide enough for both. Arms: the drafter of the router's first choice, that of its
second choice, and both. Unsure prompts: the quarter of lowest confidence. Defaults: 96 prompts, 1 pass, 4 in flight,
the small target: it is about accept lengths. Exit code 1 if both together accept less than the better one alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.one_pool import by_hand, measure_arms, output_line
from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.demo.arms import HETERO, Arm
from sglang_hetero_spec.demo.options import from_arguments
from sglang_hetero_spec.demo.shipped import Prompt, find_shipped, interleave
from sglang_hetero_spec.demo.summary import Results, tally
from sglang_hetero_spec.pool import load_pool
from sglang_hetero_spec.router.predict import LinearRouter

DEFAULTS = ("--num-prompts", "96", "--passes", "1", "--concurrency", "4", "--target-params", "0")
FIRST, SECOND, BOTH = "first choice", "second choice", "both"


@dataclass(frozen=True)
class Choice:
    """What the router says of a prompt: drafters of its two likeliest tasks."""

    confidence: float
    first: str
    second: str


@dataclass(frozen=True)
class ChosenArm(Arm):
    """of_text: the override for each prompt."""

    of_text: Mapping[str, dict[str, Any]] | None = None

    def custom_params(self, prompt: Prompt) -> dict[str, Any] | None:
        assert self.of_text is not None
        return {"hetero": self.of_text[prompt.text]}


def choices_of(prompts: Collection[Prompt]) -> dict[str, Choice]:
    pool = load_pool(find_shipped().pool)
    assert pool.router is not None
    router = LinearRouter.load(pool.router.path)
    drafter_of = {task.id: task.drafter for task in pool.tasks}
    found = {}
    for prompt in prompts:
        prediction = router.predict(prompt.text)
        ranked = sorted(zip(prediction.scores, router.classes, strict=True), reverse=True)
        found[prompt.text] = Choice(prediction.confidence, drafter_of[ranked[0][1]], drafter_of[ranked[1][1]])
    return found


def arms_of(choices: Mapping[str, Choice]) -> list[ChosenArm]:
    overrides = {
        FIRST: {text: {"drafter": one.first} for text, one in choices.items()},
        SECOND: {text: {"drafter": one.second} for text, one in choices.items()},
        BOTH: {text: {"drafters": [one.first, one.second]} for text, one in choices.items()},
    }
    return [ChosenArm(name, HETERO, of_text=of_text) for name, of_text in overrides.items()]


def manifest() -> dict[str, Any]:
    root = find_shipped().pool
    shipped = json.loads((root / "pool.json").read_text())
    drafters = [
        {**drafter, "path": str(root / drafter["path"]), "external": True} if "path" in drafter else drafter
        for drafter in shipped["drafters"]
    ]
    widest = max(drafter.get("num_draft_tokens", 1) for drafter in drafters)
    return by_hand(drafters, shipped["fallback_drafter"], merged_draft_tokens=2 * widest - 1)


def lengths(results: Results, concurrency: int, numbers: Collection[int]) -> dict[str, float]:
    """Accept length of each arm on these prompts."""
    found = {}
    for arm in (FIRST, SECOND, BOTH):
        answers = [one.answers[number] for one in results.of(arm, concurrency) for number in numbers]
        found[arm] = tally(answers).accept_length or 0.0
    return found


def show(results: Results, prompts: list[Prompt], choices: Mapping[str, Choice]) -> bool:
    by_confidence = sorted(range(len(prompts)), key=lambda number: choices[prompts[number].text].confidence)
    unsure = by_confidence[: len(prompts) // 4]
    groups = {task: [n for n, prompt in enumerate(prompts) if prompt.task == task] for task in results.tasks}
    groups |= {"all": list(range(len(prompts))), "unsure": unsure}
    held = True
    for concurrency in results.concurrencies:
        for name, numbers in groups.items():
            found = lengths(results, concurrency, numbers)
            ok = found[BOTH] >= max(found[FIRST], found[SECOND])
            held = held and ok
            words = ", ".join(f"{arm} {length:.3f}" for arm, length in found.items())
            print(f"{'ok  ' if ok else 'MISS'} {concurrency:2} in flight, {name:10} {len(numbers):3} prompts: {words}")
    highest = choices[prompts[unsure[-1]].text].confidence
    print(f"Unsure: confidence up to {highest:.3f}. {output_line(results)}")
    return held


def main(argv: list[str] | None = None) -> int:
    _, rest = argparse.ArgumentParser(description=__doc__).parse_known_args(argv)
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    prompts, warm_up = interleave(find_shipped().prompts(), options.num_prompts)
    choices = choices_of([*prompts, *warm_up])
    return DONE if show(measure_arms(manifest(), arms_of(choices), options), list(prompts), choices) else FAILED


if __name__ == "__main__":
    sys.exit(main())
