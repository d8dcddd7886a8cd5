"""`hetero-spec inspect`: what is in a pool, checked as the server checks it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, UsageError, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.pool import DrafterSpec, Pool


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser("inspect", help="what is in a pool, checked")
    parser.add_argument("pool", metavar="POOL", help="the pool's folder")
    parser.add_argument("--target", metavar="T", help="the target's folder: vocabularies are compared with its own")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.commands.checked import checked_pool

    if args.target is not None and not Path(args.target).is_dir():
        raise UsageError(f"--target {args.target} is not a folder; give the folder of the target's checkpoint.")
    pool = checked_pool(args.pool, args.target)
    if args.json:
        print_json(as_dict(pool))
    else:
        _print_tables(pool)
        for note in _notes(pool, args.target is not None):
            say(note)
    return DONE


def _notes(pool: Pool, has_target: bool) -> Iterator[str]:
    if not has_target and pool.target.tokenizer_sha256 is None:
        yield "Tokenizers were not compared: give --target DIR to compare them with the target's."
    if not has_target and any(drafter.vocab != "shared" for drafter in pool.drafters):
        yield "Vocabularies were not compared: give --target DIR to see what they share, and which mode `auto` is."


def as_dict(pool: Pool) -> dict[str, Any]:
    """The pool for machines; hashes are of what lies on disk."""
    return {
        "pool": str(pool.root),
        "target": {
            "name_or_path": pool.target.name_or_path,
            "tokenizer_sha256": pool.target.tokenizer_sha256,
        },
        "drafters": [_drafter_dict(drafter) for drafter in pool.drafters],
        "tasks": [asdict(task) for task in pool.tasks],
        "fallback_drafter": pool.fallback_drafter,
        "merged_draft_tokens": pool.merged_draft_tokens,
        "router": pool.router and {**asdict(pool.router), "path": str(pool.router.path)},
    }


def _drafter_dict(drafter: DrafterSpec) -> dict[str, Any]:
    from sglang_hetero_spec.pool import checkpoint_size, tokenizer_sha256, weights_sha256

    described: dict[str, Any] = {
        "name": drafter.name,
        "kind": drafter.kind,
        "path": drafter.path and str(drafter.path),
        "external": drafter.external,
        "vocab": drafter.vocab,
        "auto_reason": drafter.auto_reason,
        "overlap": drafter.overlap and drafter.overlap.as_dict(),
        "warning": drafter.overlap and drafter.overlap.warning(drafter.name, drafter.vocab),
        "base": drafter.base,
        "num_steps": drafter.num_steps,
        "topk": drafter.topk,
        "num_draft_tokens": drafter.num_draft_tokens,
    }
    if drafter.kind == "ngram":
        described["capacity"] = drafter.capacity
        described["corpus_tokens"] = _corpus_tokens(drafter)
    elif drafter.path is not None:
        size = checkpoint_size(drafter.path)
        described.update(num_params=size.num_params, weight_bytes=size.weight_bytes)
    if drafter.kind == "sorted":
        described.update(exits=list(drafter.exits), thresholds=list(drafter.thresholds))
    if drafter.path is not None:
        described["weights_sha256"] = weights_sha256(drafter.path)
        if (drafter.path / "tokenizer.json").is_file():
            described["tokenizer_sha256"] = tokenizer_sha256(drafter.path)
    return described


def _corpus_tokens(drafter: DrafterSpec) -> int:
    from sglang_hetero_spec.pool.entries.ngram import corpus_tokens

    return 0 if drafter.path is None else corpus_tokens(drafter.path)


def _print_tables(pool: Pool) -> None:
    from rich.markup import escape
    from rich.table import Table

    drafters = Table(title=f"Pool {escape(str(pool.root))}", title_justify="left")
    for heading in ("#", "drafter", "kind", "vocab", "steps", "topk", "draft tokens", "parameters", "tasks"):
        drafters.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for index, drafter in enumerate(pool.drafters):
        drafters.add_row(str(index), *_row(pool, drafter))
    out = console()
    out.print(drafters)
    if pool.router is None:
        out.print(f"No router: {escape(pool.fallback_drafter)} serves every request that names no drafter.")
    else:
        out.print(
            f"Router: {len(pool.tasks)} tasks; below a confidence of {pool.router.min_confidence:g}"
            f" {escape(pool.fallback_drafter)} serves."
        )
        if pool.router.second_below is not None:
            out.print(f"Below {pool.router.second_below:g} the drafter of its next guess drafts too.")
    for drafter in pool.drafters:
        lines = (*_vocabulary_lines(drafter), *_corpus_lines(drafter), *_exit_lines(pool, drafter), *_place(drafter))
        for line in lines:
            out.print(escape(line), soft_wrap=True)
    out.print("Every check passed.")


def _corpus_lines(drafter: DrafterSpec) -> Iterator[str]:
    if drafter.kind == "ngram":
        begins = f"begins with {_corpus_tokens(drafter):,}" if drafter.path is not None else "begins with nothing"
        yield f"Drafter {drafter.name} remembers {drafter.capacity:,} tokens, the oldest out first; it {begins}."


def _exit_lines(pool: Pool, drafter: DrafterSpec) -> Iterator[str]:
    """Thresholds belong to one target: another pool may have the same files with others."""
    if drafter.kind != "sorted":
        return
    from sglang_hetero_spec.pool.exits import taken

    served = taken(drafter)
    *inner, last = served.exits
    sure = zip(inner, served.thresholds, strict=True)
    early = "".join(f"behind layer {layers} where it is sure to {threshold:g}, " for layers, threshold in sure)
    target = "" if pool.target.name_or_path is None else f" for the target {pool.target.name_or_path}"
    yield f"Drafter {drafter.name} leaves its model{target} {early}{'else ' if inner else ''}behind layer {last}."
    unused = [str(layers) for layers in drafter.exits if layers not in served.exits]
    if unused:
        which = f"layer{'s' if len(unused) > 1 else ''} {' and '.join(unused)}"
        yield f"Drafter {drafter.name} could be left behind {which} too, which never pays here."


def _place(drafter: DrafterSpec) -> Iterator[str]:
    if drafter.external:
        yield f"Drafter {drafter.name} lies outside of the pool, in {drafter.path}."


def _vocabulary_lines(drafter: DrafterSpec) -> Iterator[str]:
    if drafter.auto_reason is not None:
        yield f"Drafter {drafter.name} is `{drafter.vocab}` by `auto`: {drafter.auto_reason}."
    if drafter.overlap is not None:
        yield drafter.overlap.line(drafter.name, drafter.vocab)
        warning = drafter.overlap.warning(drafter.name, drafter.vocab)
        if warning is not None:
            yield f"Warning: {warning[0].lower()}{warning[1:]}"


_NUMBERS = ("#", "steps", "topk", "draft tokens", "parameters")


def _row(pool: Pool, drafter: DrafterSpec) -> list[str]:
    from rich.markup import escape

    from sglang_hetero_spec.pool import checkpoint_size

    tasks = [task.id for task in pool.tasks if task.drafter == drafter.name]
    tasks += [f"{task.id} (second)" for task in pool.tasks if task.second_drafter == drafter.name]
    tasks += ["(fallback)"] if drafter.name == pool.fallback_drafter else []
    path = drafter.path
    cells = [
        drafter.name,
        drafter.kind if drafter.base is None else f"{drafter.kind} on {drafter.base}",
        _vocab_cell(drafter) if path else "",
        str(drafter.num_steps),
        str(drafter.topk),
    ]
    has_model = path is not None and drafter.kind != "ngram"
    cells += [str(drafter.num_draft_tokens), f"{checkpoint_size(path).num_params:,}" if has_model else ""]
    return [escape(cell) for cell in (*cells, ", ".join(tasks))]


def _vocab_cell(drafter: DrafterSpec) -> str:
    return f"{drafter.vocab} (auto)" if drafter.auto_reason is not None else drafter.vocab
