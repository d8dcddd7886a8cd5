"""The demo's sorted drafter on both of the demo's targets, beside drafters that were made for one of them alone.

    python -m benchmarks.two_targets --work FOLDER [--target-params N] [--drafter-params N] [--num-steps 4,8]
                                     [--prompts 4] [--rounds 1] [--publish]

--work: scratch; what is there already is found again. The targets' answers, by which the others learn and thresholds
are chosen, are made here from generated prompts, or found in FOLDER/split and FOLDER/two/small-split. A drafter for one
target alone has the same start (the first layers of the demo's target), recipe and number of tokens of that target's
answers as the one for both had; only the other target's answers are left out. --target-params: the first target made as
costly, the small one in proportion (demo/costly.py). --publish: the demo's pools get the thresholds and chain length
that were chosen here, and the demo shows these figures.

The mixed workload, one request in flight, timed in the engine as by benchmarks.sorted_speed: every request is sent to
one drafter after the other. Exit code 1 if on a target the one checkpoint is slower than 0.97 of the drafter for that
target alone, by more than two standard errors, or not faster than its own best fixed exit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.sorted_speed import MIXED, OURS, Found, Setup, costly, fixed_of, run
from sglang_hetero_spec.build.profile.candidates import NOBODY, Candidate
from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from sglang_hetero_spec.build.regenerate import Options, regenerate
from sglang_hetero_spec.build.split import write_split
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.demo.data import TASKS, examples, find_sources
from sglang_hetero_spec.demo.shipped import find_shipped
from sglang_hetero_spec.demo.two_figures import FIGURES_NAME, OneTarget, TwoTargets, as_file
from sglang_hetero_spec.demo.two_targets import (
    BOTH,
    ENGINE_FLAGS,
    EXITS,
    HELDOUT,
    SMALL,
    Bench,
    TwoSettings,
    add_to_pool,
    write_small_pool,
)
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json
from sglang_hetero_spec.pool import checkpoint_size

OWN = "own"
PROMPTS_PER_TASK, HELDOUT_SHARE = 900, 0.15


def bench_of(work: Path) -> Bench:
    """The shipped models, with answers of the demo's target."""
    work.mkdir(parents=True, exist_ok=True)
    shipped, split, prompts = find_shipped(), work / "split", work / "prompts.jsonl"
    bench = Bench(shipped.target, split, prompts, work / "two", TwoSettings(), lambda text: print(text, flush=True))
    for place, source in ((bench.small, shipped.small_target), (bench.drafter, shipped.pool / "drafters" / BOTH)):
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(source)
    if not (split / HELDOUT).is_file():
        sources, _ = find_sources(None)
        made = [
            plain_prompt(example.prompt, task=task)
            for task in TASKS
            for example in examples(task, PROMPTS_PER_TASK, heldout=False, sources=sources, seed=1)
        ]
        write_prompts(prompts, made)
        answers = work / "answers.jsonl"
        options = Options(max_new_tokens=192, batch=64, flags=ENGINE_FLAGS)
        regenerate(str(bench.target), str(prompts), str(answers), options)
        split.mkdir(exist_ok=True)
        write_split(split, made, answers, HELDOUT_SHARE)
    bench.answer()
    return bench


def own_drafters(bench: Bench) -> dict[str, Path]:
    """By target ("" the demo's), made for it alone; in two stages, as the one for both."""
    first, small_first = bench.folder / "first", bench.folder / "small-first"
    bench.align("first", bench.settings.first(), bench.split, first)
    cut = bench.folder / "cut"
    if not cut.exists():
        _cut(bench.target, cut)
    bench.align(
        "small-first", bench.settings.first(layers=False), bench.small_split, small_first, base=cut, target=bench.small
    )
    half = replace(bench.settings, both_tokens=bench.settings.both_tokens // 2).both()
    found = {"": bench.folder / OWN, SMALL: bench.folder / f"small-{OWN}"}
    bench.align(OWN, half, bench.split, found[""], base=first)
    bench.align(f"small-{OWN}", half, bench.small_split, found[SMALL], base=small_first, target=bench.small)
    return found


def _cut(target: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sglang_hetero_spec.build.align.models import cut_model

    model = cut_model(AutoModelForCausalLM.from_pretrained(target), list(range(len(EXITS))), 0)
    AutoTokenizer.from_pretrained(target).save_pretrained(out)
    model.save_pretrained(out)


def one_target(name: str, num_params: int, found: Found) -> OneTarget:
    tallies, chosen = found.tallies[MIXED, 1], found.candidates[OURS, 1]
    best = max(fixed_of(tallies), key=lambda arm: tallies[arm].speed)
    over_fixed, fixed_error = tallies[OURS].beside(tallies[best])
    over_own, own_error = tallies[OURS].beside(tallies[OWN])
    extra = dict(chosen.extra)
    return OneTarget(
        target=name,
        num_params=num_params,
        exits=tuple(extra["exits"]),
        thresholds=tuple(extra["thresholds"]),
        num_steps=chosen.settings.num_steps,
        accept_length=tallies[OURS].accept_length,
        tokens_per_second=tallies[OURS].speed,
        none=tallies[NOBODY.drafter].speed,
        best_fixed=best.removeprefix(f"{OURS}-"),
        over_fixed=over_fixed,
        over_fixed_error=fixed_error,
        over_own=over_own,
        over_own_error=own_error,
    )


def publish(chosen: Mapping[str, Candidate], figures: TwoTargets) -> None:
    shipped = find_shipped()
    add_to_pool(shipped.pool, shipped.target, chosen[""])
    write_small_pool(shipped.small_pool, shipped.small_target, shipped.pool, chosen[SMALL])
    write_json(shipped.root / FIGURES_NAME, as_file(figures), HeteroError)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target-params", type=int, default=100_000_000)
    parser.add_argument("--drafter-params", type=int, default=20_000_000)
    parser.add_argument("--num-steps", type=lambda text: tuple(map(int, text.split(","))), default=(4, 8))
    for name, default in (("prompts", 4), ("rounds", 1), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args(argv)
    bench = bench_of(args.work)
    own = own_drafters(bench)
    large = checkpoint_size(bench.target).num_params
    held, rows, chosen = True, [], {}
    for name, target, split in (("", bench.target, bench.split), (SMALL, bench.small, bench.small_split)):
        params = args.target_params * checkpoint_size(target).num_params // large
        print(f"{name or 'larger'} target, {params or 'not'} costly", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            served = costly(target, Path(scratch) / "target", params)
            drafters = {OURS: bench.drafter, OWN: own[name]}
            setup = Setup(
                target=served,
                drafters={n: costly(d, Path(scratch) / n, args.drafter_params) for n, d in drafters.items()},
                split=split,
                concurrency=(1,),
                prompts=args.prompts,
                rounds=args.rounds,
                tokens=args.tokens,
                num_steps=args.num_steps,
                mixed_only=True,
            )
            found = run(setup)
            held &= found.held
            rows.append(one_target(name or "larger", checkpoint_size(served).num_params, found))
            chosen[name] = found.candidates[OURS, 1]
    if args.publish:
        given = [f"--work FOLDER --target-params {args.target_params} --drafter-params {args.drafter_params}"]
        given += [f"--prompts {args.prompts} --rounds {args.rounds} --tokens {args.tokens}"]
        figures = TwoTargets(BOTH, f"python -m benchmarks.two_targets {' '.join(given)}", tuple(rows))
        publish(chosen, figures)
    return DONE if held else FAILED


if __name__ == "__main__":
    sys.exit(main())
