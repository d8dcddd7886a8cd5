"""`hetero-spec bench`: what a pool brings on this machine, so that it can be checked; the work is in `bench/`."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.demo import parameters, positive, positives
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.bench.results.finish import Finished

_NOT_STORED = ("command", "run", "out", "resume", "check", "agree", "json")


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "bench",
        help="none, STANDALONE, NGRAM and HETERO side by side, in one run that can be checked",
        description="Serves the same prompts without speculation, with SGLang's STANDALONE (general and best single"
        " drafter) and NGRAM, and with HETERO (its router, and oracle, random and worst routing), in blocks that"
        " alternate, and writes all that was counted to one folder. Alone it measures the demo's pool, in less than"
        " half an hour on 2 cores. Stopped at any moment, the same command with the same --out goes on from there.",
        epilog="The whole comparison, some hours on 2 cores: hetero-spec bench --concurrency 1,4,16,64 --rate 0.5"
        " --num-prompts 96 --max-new-tokens 128",
    )
    _add_inputs(parser)
    _add_traffic(parser)
    _add_arms(parser)
    _add_engine(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, with its own options")
    parser.add_argument(
        "--check", metavar="RUN",
        help="measure nothing: say whether this run may be cited, and its figures follow from its records",
    )  # fmt: skip
    parser.add_argument(
        "--agree", nargs=2, metavar="RUN",
        help="measure nothing: say whether two runs agree within the intervals that they state",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="T", help="the target's checkpoint (default: the demo's)")
    parser.add_argument("--pool", metavar="POOL", help="default: the demo's")
    parser.add_argument(
        "--prompts", metavar="FILE",
        help="Spec-Bench's question.jsonl (first turns), or any log that `build` reads; not those that the pool was"
        " made from (default: the demo's held-out ones)",
    )  # fmt: skip
    parser.add_argument(
        "--num-prompts", type=positive, metavar="N", help="tasks in turn (default: 12 of the demo's, 48 of a file)"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, metavar="N", help="longest answer (default: 32 for the demo, else 128)"
    )
    parser.add_argument(
        "--prompt-tokens", type=positives, metavar="N,...",
        help="bring prompts to these lengths, in turn, by joining prompts of a task (default: as they are)",
    )  # fmt: skip


def _add_traffic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=positives, metavar="N,...", help="requests in flight (default: 1,4)")
    parser.add_argument(
        "--rate",
        type=rates,
        metavar="R,...",
        help="requests that arrive a second, as a Poisson process (default: none)",
    )
    parser.add_argument("--repetitions", type=positive, default=3, metavar="N", help="of each block (default: 3)")
    parser.add_argument("--temperature", type=temperature, default=0.0, metavar="T", help="default: 0, greedy")
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="of arrivals and random routing (default: 0)"
    )
    parser.add_argument(
        "--order", choices=("interleaved", "grouped"), default="interleaved",
        help="grouped: one server after the other (less memory; blocks do not alternate then)",
    )  # fmt: skip


def _add_arms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arms", type=names, metavar="A,...",
        help="of none, standalone, standalone-best, ngram, hetero, hetero-oracle, hetero-random, hetero-worst and those"
        " of --arms-file (default: all); none is always measured",
    )  # fmt: skip
    parser.add_argument(
        "--arms-file", metavar="YAML",
        help="further arms: a list of objects with `name`, `title`, and `options` (SGLang's, such as EAGLE3's), `url`,"
        " or `drafter` (of the pool)",
    )  # fmt: skip
    parser.add_argument(
        "--url", type=named_url, action="append", metavar="[ARM=]URL",
        help="a running server in place of one that is started; several times",
    )  # fmt: skip
    parser.add_argument("--standalone", metavar="NAME", help="drafter of standalone-best (default: by the profile)")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-params", type=parameters, metavar="N",
        help="make the target as costly as one of N parameters without changing its function (default: 200M for the"
        " demo's; 0: as it is)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA if there is any")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32 on a CPU, bfloat16 on CUDA"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the engine (default: cores)")
    parser.add_argument("--context-length", type=positive, metavar="N", help="default: the model's")


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.bench.options import from_arguments
    from sglang_hetero_spec.bench.session import run_bench
    from sglang_hetero_spec.commands.progress import Reporter
    from sglang_hetero_spec.serving.errors import ServingError
    from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted

    as_json = args.json
    if args.check is not None:
        return _check(Path(args.check), as_json)
    if args.agree is not None:
        return _agree(*args.agree, as_json)
    resumes = args.resume is not None
    args, out = _resumed(args)
    if resumes and _is_complete(out):
        _show(out, as_json)
        return DONE
    again = f"hetero-spec bench --resume {out}"
    try:
        with terminated_like_interrupted(), Reporter() as reporter:
            folder = run_bench(from_arguments(args, out), as_command(args), reporter)
    except KeyboardInterrupt:
        say(f"hetero-spec: what was measured is kept: `{again}` goes on from there.")
        raise
    except ServingError as error:
        say(
            f"hetero-spec: {error} What was measured is kept: `{again}` goes on from there; logs are in {out / 'logs'}."
        )
        return FAILED
    _show(folder, as_json)
    return DONE


def _is_complete(folder: Path) -> bool:
    from sglang_hetero_spec.bench.metadata import read_metadata

    return read_metadata(folder)["complete"] is True


def _resumed(args: argparse.Namespace) -> tuple[argparse.Namespace, Path]:
    """The options of the run that --resume names, and its folder; else those given, and the folder to write."""
    if args.resume is None:
        return args, Path(args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S"))
    if as_command(args) != ["bench"] or args.out is not None:
        raise UsageError("--resume goes on with the run's own options; give it alone, or the same command with --out.")
    from sglang_hetero_spec.bench.metadata import read_metadata
    from sglang_hetero_spec.cli import build_parser

    folder = Path(args.resume)
    return build_parser().parse_args(read_metadata(folder)["command"]), folder


def as_command(args: argparse.Namespace) -> list[str]:
    """The command line without what only says where the run lies: the same for the same run."""
    from sglang_hetero_spec.cli import build_parser

    defaults = vars(build_parser().parse_args(["bench"]))
    command = ["bench"]
    for name, value in vars(args).items():
        if name not in _NOT_STORED and value != defaults[name]:
            flag = f"--{name.replace('_', '-')}"
            if name == "url":
                command += [part for arm, url in value for part in (flag, f"{arm}={url}" if arm else url)]
            else:
                command += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return command


def _show(folder: Path, as_json: bool) -> None:
    from sglang_hetero_spec.bench.results.finish import finish

    finished = finish(folder)
    if as_json:
        _print_json(folder, finished)
        return
    print(finished.summary)
    print(f"The run is in {folder}; {folder / 'report.html'} has all of it.")


def _check(folder: Path, as_json: bool) -> int:
    """Whether the records of a run may be cited, and its figures follow from them."""
    from sglang_hetero_spec.bench.results.finish import check

    finished = check(folder)
    if as_json:
        _print_json(folder, finished)
    else:
        print("\n".join(["Citable." if finished.citable else "Not citable:", *finished.why_not]))
    return DONE if finished.citable else FAILED


def _agree(first: str, second: str, as_json: bool) -> int:
    """Fails where a figure differs by more than both intervals say."""
    from dataclasses import asdict

    from sglang_hetero_spec.bench.results.agree import agreement

    pairs = agreement(first, second)
    if as_json:
        print_json({"runs": [first, second], "figures": [asdict(pair) for pair in pairs]})
    words = {True: "agree", False: "DIFFER", None: "not known"}
    for pair in () if as_json else pairs:
        one, other = ("-" if value is None else f"{value:.3f}" for value in (pair.first, pair.second))
        print(f"{words[pair.agrees]:10} {pair.setting:6} {pair.name}: {one} and {other}")
    return FAILED if any(pair.agrees is False for pair in pairs) else DONE


def _print_json(folder: Path, finished: Finished) -> None:
    print_json(
        {
            "run": str(folder),
            "citable": finished.citable,
            "why_not": finished.why_not,
            "aggregate": finished.aggregate,
        }
    )


def rates(text: str) -> tuple[float, ...]:
    """Requests a second, above 0, with commas between them, for argparse."""
    found = []
    for part in text.split(","):
        rate = _number(part)
        if not 0 < rate < math.inf:
            raise argparse.ArgumentTypeError(f"{part!r} is not a number of requests a second above 0")
        found.append(rate)
    return tuple(dict.fromkeys(found))


def temperature(text: str) -> float:
    """0 or above, for argparse."""
    found = _number(text)
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a temperature; give 0 or more")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def whole(text: str) -> int:
    """A whole number from 0 on, for argparse."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, for argparse."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names")
    return tuple(dict.fromkeys(found))


def named_url(text: str) -> tuple[str, str]:
    """[NAME=]http://HOST:PORT, for argparse."""
    from sglang_hetero_spec.bench.servers import parse_named_url

    try:
        return parse_named_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
