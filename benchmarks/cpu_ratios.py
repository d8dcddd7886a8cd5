"""How many times as fast as a loop over requests each CPU op is.

    python -m benchmarks.cpu_ratios                       # every op; contexts of 64, 256, 1024 and 4096 tokens
    python -m benchmarks.cpu_ratios -k attention --sizes 1 16 --lengths 64 1024 --threads 1 2 --rounds 7

The two forms take turns, call by call, so that other programs on the machine hit both alike. A round's ratio is that of
the medians of its calls; the table has the median of the rounds, and their range. Above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.cpu_ops import CASES, Case
from benchmarks.cpu_ops.case import Form

LENGTHS = (64, 256, 1024, 4096)
SIZES = (1, 4, 16)
# A prompt of 4,096 tokens takes seconds in either form.
_LONGEST_PREFILL = 1024
_ROUND_SECONDS, _MIN_CALLS = 0.1, 3


def round_medians(ours: Form, loop: Form) -> tuple[float, float]:
    """Seconds of a call of each, called in turn."""
    mine: list[float] = []
    theirs: list[float] = []
    end = time.perf_counter() + _ROUND_SECONDS
    while len(mine) < _MIN_CALLS or time.perf_counter() < end:
        for form, times in ((ours, mine), (loop, theirs)):
            start = time.perf_counter()
            form()
            times.append(time.perf_counter() - start)
    return statistics.median(mine), statistics.median(theirs)


def measure(case: Case, size: int, length: int, rounds: int) -> tuple[float, list[float]]:
    """Seconds of our form, and a ratio for each round."""
    forms = case.make(size, length)
    forms.ours(), forms.loop()
    pairs = [round_medians(forms.ours, forms.loop) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in pairs), [loop / ours for ours, loop in pairs]


def lengths_for(case: Case, lengths: list[int]) -> list[int]:
    if not case.by_length:
        return lengths[:1]
    return [length for length in lengths if "prefill" not in case.name or length <= _LONGEST_PREFILL]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="TEXT", help="only ops whose name contains this")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="requests in the batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="context in tokens")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cases = [case for case in CASES if args.k in case.name]
    if not cases:
        parser.error(f"no op's name contains {args.k!r}; there are: " + ", ".join(case.name for case in CASES))
    print(f"{'op':26}{'context':>8}{'threads':>8}{'requests':>9}{'ours us':>10}{'loop/ours':>10}   rounds")
    with torch.inference_mode():
        for threads in args.threads:
            torch.set_num_threads(threads)
            for case in cases:
                for length in lengths_for(case, args.lengths):
                    for size in args.sizes:
                        seconds, ratios = measure(case, size, length, args.rounds)
                        context = f"{length:,}" if case.by_length else "-"
                        print(
                            f"{case.name:26}{context:>8}{threads:8}{size:9}{seconds * 1e6:10.1f}"
                            f"{statistics.median(ratios):10.2f}   {min(ratios):.2f} to {max(ratios):.2f}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
