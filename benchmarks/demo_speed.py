"""Speed and accept lengths of the demo at several numbers of requests in flight, with the limits they are held to.

    python -m benchmarks.demo_speed [--json FILE] [OPTIONS OF hetero-spec demo]

Four ways to serve, in one run on one machine, passes alternating: no speculation, SGLang's STANDALONE with the general
drafter, HETERO with the pool, and HETERO with the general drafter for every request (the same weights and settings as
STANDALONE). Defaults: 48 prompts, 3 passes, 1, 4 and 16 requests in flight. The machine should have nothing else to do.
Exit code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.output import DONE, FAILED, console
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo.arms import HETERO, NONE, ONE_DRAFTER, STANDALONE
from sglang_hetero_spec.demo.options import from_arguments
from sglang_hetero_spec.demo.run import Outcome, as_dict, run
from sglang_hetero_spec.demo.shipped import find_shipped
from sglang_hetero_spec.demo.summary import Results
from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted

DEFAULTS = ("--num-prompts", "48", "--passes", "3", "--concurrency", "1,4,16", "--target-params", "300M")
OVER_NONE = {1: 1.5, 4: 1.3, 16: 1.0}
OVER_STANDALONE = 1.15
ONE_DRAFTER_OVER_STANDALONE = 0.97
GAIN_EVERY_TASK, GAIN_ONE_TASK = 1.06, 1.30


@dataclass(frozen=True)
class Check:
    """A figure and the least that it should be. spread: smallest and largest of single passes, where there are any."""

    name: str
    found: float
    limit: float
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        return self.found >= self.limit

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ({self.spread[0]:.3f}-{self.spread[1]:.3f})"
        return f"{'ok  ' if self.holds else 'MISS'} {self.name}: {self.found:.3f}{spread}, at least {self.limit:.2f}"


def checks(results: Results) -> list[Check]:
    found = [check for c in results.concurrencies for check in (*speed_checks(results, c), *length_checks(results, c))]
    return found + gain_checks(results, results.concurrencies[0])


def speed_checks(results: Results, concurrency: int) -> list[Check]:
    """Ratios of tokens per second of the mixed traffic."""
    wanted = [
        (HETERO, NONE, OVER_NONE.get(concurrency, 1.0)),
        (HETERO, STANDALONE, OVER_STANDALONE),
        (ONE_DRAFTER, STANDALONE, ONE_DRAFTER_OVER_STANDALONE),
    ]
    found = []
    for arm, base, limit in wanted:
        ratio = results.ratio(arm, base, concurrency)
        assert ratio is not None
        name = f"{concurrency:2} in flight: tokens/s of {arm} over {base}"
        found.append(Check(name, ratio.overall, limit, (ratio.smallest, ratio.largest)))
    return found


def length_checks(results: Results, concurrency: int) -> list[Check]:
    """With equal weights and settings: accept length of HETERO over STANDALONE's, per task."""
    found = []
    for task in results.tasks:
        ours = results.tally(ONE_DRAFTER, concurrency, task).accept_length
        theirs = results.tally(STANDALONE, concurrency, task).accept_length
        name = f"{concurrency:2} in flight: {task}, accept length with the general drafter, HETERO over STANDALONE"
        found.append(Check(name, (ours or 0) / (theirs or 1), 1.0))
    return found


def gain_checks(results: Results, concurrency: int) -> list[Check]:
    """Accept rate of the task drafters over that of the general one, both in HETERO."""
    gains = {}
    for task in results.tasks:
        ours = results.tally(HETERO, concurrency, task).accept_rate
        general = results.tally(ONE_DRAFTER, concurrency, task).accept_rate
        gains[task] = (ours or 0) / (general or 1)
    found = [Check(f"{task}: accept rate, routed over general", gain, GAIN_EVERY_TASK) for task, gain in gains.items()]
    return [*found, Check("best task: accept rate, routed over general", max(gains.values()), GAIN_ONE_TASK)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write everything there")
    args, rest = parser.parse_known_args(argv)
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    with terminated_like_interrupted(), Reporter() as reporter:
        outcome = run(find_shipped(), options, reporter, one_drafter=True)
    found = checks(outcome.results)
    if args.json:
        verdicts = [vars(check) | {"holds": check.holds} for check in found]
        args.json.write_text(json.dumps(as_dict(outcome) | {"checks": verdicts}, indent=1), encoding="utf-8")
    show(outcome, found)
    return DONE if all(check.holds for check in found) else FAILED


def show(outcome: Outcome, found: list[Check]) -> None:
    from rich import box
    from rich.table import Table

    results, out = outcome.results, console()
    for concurrency in results.concurrencies:
        table = Table(title=f"{concurrency} in flight", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "tokens/s", "passes", *(f"{task} length/rate" for task in results.tasks)):
            table.add_column(heading, justify="right" if heading else "left")
        for arm in results.arms:
            speed = results.speed(arm, concurrency)
            assert speed is not None
            cells = [f"{speed.overall:.1f}", f"{speed.slowest:.1f}-{speed.fastest:.1f}"]
            for task in results.tasks:
                counts = results.tally(arm, concurrency, task)
                cells.append(f"{counts.accept_length:.2f}/{counts.accept_rate:.3f}" if counts.accept_length else "")
            table.add_row(arm, *cells)
        out.print(table)
    for check in found:
        out.print(str(check), style="" if check.holds else "bold red")
    verdict = "identical" if not results.differences else f"{len(results.differences)} answers differ"
    out.print(f"Output: {verdict}. {outcome.cost_note()}")
    for difference in results.differences:
        out.print(str(difference))
    out.print(f"Machine: {outcome.machine.sentence()}. {outcome.seconds / 60:.1f} minutes.")


if __name__ == "__main__":
    sys.exit(main())
