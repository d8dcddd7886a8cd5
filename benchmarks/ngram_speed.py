"""The n-gram drafter against SGLang's NGRAM, with trees of the same width.

    python -m benchmarks.ngram_speed replay [--width 12] [--tokenizer FOLDER]
    python -m benchmarks.ngram_speed serve [--width 12] [OPTIONS OF hetero-spec demo]

replay: accept lengths on texts that repeat their prompts (benchmarks/ngram_texts.py): a walk along each answer, no
model is asked. Both corpora are fed as their workers feed them, requests one after the other; SGLang's is also given
whole prompts, which its worker does not do, with both of its ways to match. Exit code 1 where any of them accepts more.
serve: three real servers (no speculation, NGRAM, HETERO with an n-gram drafter alone) on the demo's prompts, passes
alternating; prompts come again in each pass, to all alike. Exit code 1 where NGRAM
accepts more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import sglang_hetero_spec
from benchmarks.ngram_replay import Ours, Proposer, Replay, SGLangs, replay
from benchmarks.ngram_texts import Exchange, workloads
from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.checked import checked_pool
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo import measure
from sglang_hetero_spec.demo.arms import HETERO, NGRAM, NONE, TITLES, Arm, plan_servers
from sglang_hetero_spec.demo.machine import describe
from sglang_hetero_spec.demo.options import DemoOptions, from_arguments
from sglang_hetero_spec.demo.run import _target
from sglang_hetero_spec.demo.shipped import find_shipped, interleave
from sglang_hetero_spec.demo.summary import Results
from sglang_hetero_spec.files import write_json
from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted
from sglang_hetero_spec.serving.server import ServerPlan

TARGET = Path(sglang_hetero_spec.__file__).parent / "demo" / "assets" / "target"
OURS = "hetero ngram"
TOPK = 10
# Its default of ten million nodes is more memory than a test machine has.
NGRAM_CAPACITY = "1000000"
DEFAULTS = ("--num-prompts", "48", "--passes", "3", "--concurrency", "1", "--target-params", "100M")


def shape(width: int) -> dict[str, int]:
    """As deep as it can be, and as broad as SGLang's by default."""
    return {"num_steps": width - 1, "topk": TOPK, "num_draft_tokens": width}


def proposers(width: int) -> dict[str, Proposer]:
    return {
        "ours": Ours(width - 1, TOPK, width),
        "SGLang": SGLangs(width),
        "SGLang, PROB": SGLangs(width, "PROB"),
        "SGLang, whole prompts": SGLangs(width, whole_prompts=True),
        "SGLang, PROB, whole prompts": SGLangs(width, "PROB", whole_prompts=True),
    }


def replay_all(width: int, tokenizer: Path) -> bool:
    """Prints the table; whether ours is ahead everywhere."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tokenizer)
    held = True
    for name, exchanges in workloads().items():
        pairs = [_ids(tokens, exchange) for exchange in exchanges]
        print(f"{name}: {len(pairs)} answers of {sum(len(answer) for _, answer in pairs):,} tokens, width {width}")
        results = {}
        for who, proposer in proposers(width).items():
            results[who] = Replay()
            for number, (prompt, answer) in enumerate(pairs):
                replay(proposer, str(number), prompt, answer, results[who])
            print(f"  {who:28} accept length {results[who].accept_length:6.3f}", end="")
            print(f"   {results[who].milliseconds:.2f} ms a step")
        held = held and all(results["ours"].accept_length >= other.accept_length for other in results.values())
    return held


def _ids(tokenizer: object, exchange: Exchange) -> tuple[list[int], list[int]]:
    return tuple(tokenizer(text, verbose=False).input_ids for text in (exchange.prompt, exchange.answer))  # type: ignore[operator]


def serve(width: int, options: DemoOptions) -> bool:
    shipped = find_shipped()
    prompts, warm_up = interleave(shipped.prompts(), options.num_prompts)
    arms = [Arm(NONE, NONE), Arm(NGRAM, NGRAM), Arm(OURS, HETERO)]
    with tempfile.TemporaryDirectory() as folder, terminated_like_interrupted(), Reporter() as reporter:
        print(f"Machine: {describe(options).sentence()}.")
        costly, target = _target(shipped, options, reporter)
        pool = checked_pool(str(write_pool(Path(folder) / "pool", width)), str(target))
        results = measure.run(
            plan(target, pool, options, width),
            arms,
            measure.Workload(prompts, warm_up),
            options,
            num_params=costly.num_params if costly else 0,
            logs=Path(folder),
            reporter=reporter,
        )
    return show(results)


def write_pool(folder: Path, width: int) -> Path:
    folder.mkdir()
    manifest = {
        **{"format": "sglang_hetero_spec.pool", "schema_version": 1, "target": {}, "tasks": []},
        **{"drafters": [{"name": "copies", "kind": "ngram", **shape(width)}], "fallback_drafter": "copies"},
    }
    write_json(folder / "pool.json", manifest, OSError)
    return folder


def plan(target: Path, pool: object, options: DemoOptions, width: int) -> list[ServerPlan]:
    """plan_servers has one for STANDALONE too, of a pool's fallback: NGRAM takes its place."""
    flags = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(width))
    flags += ("--speculative-ngram-capacity", NGRAM_CAPACITY)
    found = {one.name: one for one in plan_servers(target, pool, options)}  # type: ignore[arg-type]
    common = found[NONE]
    return [common, replace(common, name=NGRAM, options=(*common.options, *flags), title=TITLES[NGRAM]), found[HETERO]]


def show(results: Results) -> bool:
    held = True
    for concurrency in results.concurrencies:
        theirs = results.tally(NGRAM, concurrency).accept_length or 1.0
        for name in (NGRAM, OURS):
            length = results.tally(name, concurrency).accept_length or 1.0
            ratio = results.ratio(name, NONE, concurrency)
            assert ratio is not None
            held = held and length >= theirs
            print(f"{concurrency:2} in flight, {name:13} accept length {length:.3f};", end=" ")
            print(f"{ratio.overall:.2f} times no speculation ({ratio.smallest:.2f}-{ratio.largest:.2f})")
            tasks = (f"{task} {results.tally(name, concurrency, task).accept_length:.2f}" for task in results.tasks)
            print(f"    {', '.join(tasks)}")
    print("Output: identical." if not results.differences else f"{len(results.differences)} answers differ.")
    return held


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("replay", "serve"))
    parser.add_argument("--width", type=int, default=12, metavar="N", help="nodes of a tree (SGLang's default: 12)")
    parser.add_argument("--tokenizer", type=Path, default=TARGET, metavar="D", help="for replay (default: the demo's)")
    args, rest = parser.parse_known_args(argv)
    if args.what == "replay":
        return DONE if replay_all(args.width, args.tokenizer) else FAILED
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    return DONE if serve(args.width, options) else FAILED


if __name__ == "__main__":
    sys.exit(main())
