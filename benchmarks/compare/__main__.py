"""Compare the benchmarks of two commits as ratios, in one run.

    python -m benchmarks.compare main .                    # main against the work that is not committed yet
    python -m benchmarks.compare v0.1 HEAD -k router --rounds 8
    python -m benchmarks.compare HEAD~3 HEAD --suites B    # B's benchmarks for both: A need not have them

Both are checked out into temporary work trees, and their suites run in fresh processes in the order A B B A A B ..., so
that what drifts hits both. A ratio is B's time over A's: below 1, B is faster. The interval (99 %) is over the pairs of
runs; what is marked lies beyond it and is at least 3 %. Exit code 0 if done, 1 if something failed, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.compare.ratios import Ratio, left_out, ratios
from benchmarks.compare.suites import Settings, Times, run_suites, same_suites
from benchmarks.compare.trees import UNCOMMITTED, CompareError, Tree, is_dirty, root_of, worktrees

Runs = list[dict[str, Times]]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="a commit, or '.' for the files as they are")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("-k", default="", metavar="EXPR", help="only these benchmarks, as pytest's -k")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default 5)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each benchmark in each run (default 0.3)")
    parser.add_argument("--suites", choices=("own", "B"), default="own", help="whose benchmarks A is measured with")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        raise CompareError(f"--rounds {args.rounds} is too few; give at least 1, and 3 for an interval worth having.")
    if not args.seconds > 0:
        raise CompareError(f"--seconds {args.seconds:g} is no time; give a number above 0.")
    return args


def measure(trees: tuple[Tree, Tree], args: argparse.Namespace) -> tuple[Runs, Runs]:
    runs: tuple[Runs, Runs] = ([], [])
    settings = Settings(args.k, args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                _say(f"round {number + 1} of {args.rounds}: {trees[which].title}")
                runs[which].append(run_suites(trees[which], settings, Path(folder) / "times.json"))
            if number == 0:
                _check_common(trees, runs, args.k)
    return runs


def _check_common(trees: tuple[Tree, Tree], runs: tuple[Runs, Runs], keyword: str) -> None:
    if set(runs[0][0]) & set(runs[1][0]):
        return
    chosen = f" matching {keyword!r}" if keyword else ""
    counts = " and ".join(f"{tree.title} has {len(run[0])}" for tree, run in zip(trees, runs, strict=True))
    raise CompareError(
        f"There is no benchmark{chosen} that both have ({counts}); perhaps --suites B or another -k helps."
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compare(repository: Path, args: argparse.Namespace) -> None:
    if is_dirty(repository) and UNCOMMITTED not in (args.a, args.b):
        _say("Note: the checkout has uncommitted work, which neither A nor B contains; '.' would.")
    with worktrees(repository, (args.a, args.b)) as trees:
        if args.suites == "B":
            same_suites(trees)
        runs = measure(trees, args)
    found = ratios(*runs)
    if not found:
        raise CompareError("No benchmark ended well in every run; look at them with pytest benchmarks.", 1)
    only = left_out(*runs)
    if args.json:
        print(json.dumps(as_json(trees, found, only, args.rounds)))
    else:
        print(table(trees, found))
        for tree, names in zip(trees, only, strict=True):
            if names:
                print(f"Only {tree.title} has: " + ", ".join(names))


def as_json(trees: tuple[Tree, Tree], found: list[Ratio], only: tuple[list[str], list[str]], rounds: int) -> dict:
    rows = [asdict(ratio) | {"mark": ratio.mark or None} for ratio in found]
    a, b = ({"name": tree.name, "title": tree.title} for tree in trees)
    return {"a": a, "b": b, "rounds": rounds, "benchmarks": rows, "only_a": only[0], "only_b": only[1]}


def table(trees: tuple[Tree, Tree], found: list[Ratio]) -> str:
    names = [ratio.name.removeprefix("benchmarks/") for ratio in found]
    width = max(map(len, names))
    lines = [f"A: {trees[0].title}", f"B: {trees[1].title}", ""]
    lines.append(f"{'benchmark':{width}}  {'A, us':>11} {'B / A':>7}   {'99 %':14} {'median':>7}")
    for name, ratio in zip(names, found, strict=True):
        spread = "-" if ratio.low is None else f"{ratio.low:.3f} - {ratio.high:.3f}"
        line = f"{name:{width}}  {ratio.a_seconds * 1e6:11,.1f} {ratio.quickest:7.3f}   {spread:14} {ratio.median:7.3f}"
        lines.append(f"{line}   {ratio.mark}".rstrip())
    marked = sum(bool(ratio.mark) for ratio in found)
    return "\n".join([*lines, "", f"{len(found)} benchmarks, {marked} beyond noise."])


def main(arguments: list[str] | None = None) -> int:
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        compare(root_of(Path.cwd()), args)
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; the work trees are removed.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
