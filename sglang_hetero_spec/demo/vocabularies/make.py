"""Makes drafters with other tokenizers for the demo's target, and one with the target's own in the same way.

python -m sglang_hetero_spec.demo.vocabularies.make --out tests/models --data DATA

The target is asked for its answers first, which takes some minutes, unless a build has them: --answers and --heldout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json, write_lines

MADE = "made.json"
TARGET = Path(__file__).parents[1] / "assets" / "target"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
# As in recipe.yaml.
SHAPE: dict[str, Any] = {
    "hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
    "intermediate_size": 80, "max_position_embeddings": 1024,
}  # fmt: skip
# Bytes need few embeddings, so that as many parameters make a wider and deeper model, and four times the context.
OF_BYTES = SHAPE | {
    "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 128, "max_position_embeddings": 4096
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "loss": "ce", "optimizer": "muon", "batch_tokens": 1024, "patience": 0, "evaluations": 8,
    "save_dtype": "bfloat16",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """One drafter. tokenizer: its family, None for the target's own. vocab: the mode that it is trained for."""

    name: str
    tokenizer: str | None
    vocab: str = "slem"
    shape: str = "tokens"


MODELS = (
    Model("shared", None),
    Model("bpe", "bpe"),
    Model("sentencepiece", "sentencepiece"),
    Model("bpe-tli", "bpe", "tli"),
    Model("sentencepiece-tli", "sentencepiece", "tli"),
    Model("bytes", "bytes", shape="bytes"),
)
# Not the target's 4096: one has fewer tokens, one more.
BPE_SIZE, SENTENCEPIECE_SIZE = 3500, 4352


@dataclass(frozen=True)
class Amount:
    """Of each task: texts for the tokenizers (and others, from elsewhere), prompts for the target.

    epochs: passes over its answers.
    """

    texts: int = 4000
    has_others: bool = True
    prompts: int = 2000
    new_tokens: int = 192
    epochs: float = 4.0


FULL, QUICK = Amount(), Amount(texts=60, has_others=False, prompts=10, new_tokens=16, epochs=0.5)


def make_tokenizers(folder: Path, data: Path | None, amount: Amount) -> None:
    """One folder for each family, `bpe`, `sentencepiece` and `bytes`."""
    from sglang_hetero_spec.demo.data import find_sources
    from sglang_hetero_spec.demo.vocabularies.families import byte_level_bpe, plain_bytes, sentencepiece
    from sglang_hetero_spec.demo.vocabularies.texts import demo_text, other_text

    sources, _ = find_sources(data)
    texts = demo_text(sources, amount.texts) + (other_text(sources) if amount.has_others else [])
    context = SHAPE["max_position_embeddings"]
    byte_level_bpe(texts, BPE_SIZE).save(folder / "bpe", context)
    sentencepiece(texts, SENTENCEPIECE_SIZE).save(folder / "sentencepiece", context)
    plain_bytes().save(folder / "bytes", OF_BYTES["max_position_embeddings"])


def make_answers(work: Path, data: Path | None, amount: Amount, url: str | None) -> tuple[Path, Path]:
    """What the demo's target says to the demo's prompts: to learn from, and held out. url: a server that serves it."""
    from sglang_hetero_spec.build.labelled import write_labelled
    from sglang_hetero_spec.build.prompts import PROMPTS_NAME, read_prompts
    from sglang_hetero_spec.build.regenerate import Options, regenerate
    from sglang_hetero_spec.build.split import write_split
    from sglang_hetero_spec.demo.data import training_prompts

    texts, tasks = training_prompts(data, amount.prompts)
    lines = (json.dumps({"prompt": text, "task": task}) for text, task in zip(texts, tasks, strict=True))
    write_lines(work / "log.jsonl", lines, HeteroError)
    write_labelled(work / "log.jsonl", work)
    flags = () if url else ("--dtype", "float32", "--max-total-tokens", "24000")
    options = Options(url=url, max_new_tokens=amount.new_tokens, batch=64, flags=flags)
    regenerate(str(TARGET), work / PROMPTS_NAME, work / "answers.jsonl", options)
    prompts = read_prompts(work / PROMPTS_NAME)
    (work / "split").mkdir(exist_ok=True)
    write_split(work / "split", prompts, work / "answers.jsonl", 0.1)
    return work / "split" / "train.jsonl", work / "split" / "heldout.jsonl"


def make_model(
    model: Model, answers: Path, heldout: Path, work: Path, amount: Amount, say: Callable[[str], None]
) -> dict[str, Any]:
    """The drafter in work/<name>; what its align.json says."""
    from sglang_hetero_spec.build.align import AlignRequest, AlignSettings, align

    shape = OF_BYTES if model.shape == "bytes" else SHAPE
    settings = AlignSettings.model_validate({**SETTINGS, "shape": shape, "vocab": model.vocab, "epochs": amount.epochs})
    tokenizer = None if model.tokenizer is None else str(work / "tokenizers" / model.tokenizer)
    request = AlignRequest(
        str(TARGET), answers, work / model.name, settings=settings, heldout=heldout, tokenizer=tokenizer
    )
    return align(request, say).made


def publish(work: Path, out: Path, name: str) -> None:
    """What is loaded, and nothing else."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(work / name / file, folder / file)


def figures(made: dict[str, Any]) -> dict[str, Any]:
    """accept_bytes: bytes of text per verify step, all tasks together: the same unit whatever the tokens are."""
    after = [found["after"] for found in made["heldout"].values()]
    steps = sum(counts["verify_steps"] for counts in after)
    return {
        "vocab": made["vocab"], "counted_in": made["counted_in"], "num_params": made["num_params"],
        "tokens": made["trained"]["tokens"], "steps": made["trained"]["steps"],
        "seconds": made["seconds"]["training"], "overlap": made["overlap"],
        "accept_length": round(sum(counts["completion_tokens"] for counts in after) / steps, 3),
        "accept_bytes": round(sum(made["heldout_bytes"].values()) / steps, 3),
    }  # fmt: skip


def _made_before(path: Path) -> dict[str, Any]:
    """What an earlier call with other --only says of its models."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}
    return found


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    says = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m sglang_hetero_spec.demo.vocabularies.make", description=says)
    parser.add_argument("--out", type=Path, required=True, help=f"gets a folder for each drafter, and {MADE}")
    parser.add_argument("--work", type=Path, help="scratch to keep (default: OUT/.work, removed in the end)")
    parser.add_argument("--answers", type=Path, help="the target's answers (default: it is asked)")
    parser.add_argument("--heldout", type=Path, help="answers to hold out, with --answers")
    parser.add_argument("--data", type=Path, help="folder with more real text (default: none)")
    parser.add_argument("--only", action="append", choices=[model.name for model in MODELS], help="not all of them")
    parser.add_argument("--url", help="a server that serves the demo's target (default: an engine is started)")
    parser.add_argument("--quick", action="store_true", help="same form, weak models")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)

    def say(text: str) -> None:
        print(text, flush=True)

    if (args.answers is None) != (args.heldout is None):
        print("--answers and --heldout go together; give both, or neither", file=sys.stderr)
        return 2
    work, amount = args.work or args.out / ".work", QUICK if args.quick else FULL
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "tokenizers" / "bytes" / "tokenizer.json").is_file():
            make_tokenizers(work / "tokenizers", args.data, amount)
        given = (args.answers, args.heldout) if args.answers else make_answers(work, args.data, amount, args.url)
        made = _made_before(args.out / MADE)
        for model in MODELS:
            if args.only is None or model.name in args.only:
                made[model.name] = figures(make_model(model, *given, work, amount, say))
                publish(work, args.out, model.name)
                say(f"{model.name}: {made[model.name]}")
        about = {"settings": SETTINGS, "epochs": amount.epochs, "models": made}
        write_json(args.out / MADE, about, HeteroError)
        if args.work is None:
            shutil.rmtree(work)
    except HeteroError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
