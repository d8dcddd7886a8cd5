"""A corpus for an n-gram drafter to begin with: the target's own answers, or any text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.build.regenerate.answers import read_answers
from sglang_hetero_spec.build.regenerate.target import load_tokenizer
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.ngram.files import write_corpus
from sglang_hetero_spec.pool.entries.ngram import MAX_CAPACITY, MIN_CAPACITY, target_vocab_size
from sglang_hetero_spec.pool.tokenizer_check import TargetTokenizer

# No tokenizer makes fewer tokens of a text than this.
_MOST_BYTES_PER_TOKEN = 64


class CorpusError(HeteroError):
    """Input that is no corpus: one sentence."""


@dataclass(frozen=True)
class CorpusMade:
    """num_tokens: of all texts. capacity: that a drafter needs to hold them."""

    path: Path
    num_texts: int
    num_tokens: int

    @property
    def capacity(self) -> int:
        return max(MIN_CAPACITY, self.num_tokens + self.num_texts)


def answer_texts(path: Path, task: str | None) -> Iterator[Sequence[int]]:
    """What the target wrote, of one task or of all."""
    answers = read_answers(path)
    mine = [answer for answer in answers if task is None or answer.task == task]
    if answers and not mine:
        known = ", ".join(sorted({answer.task for answer in answers if answer.task is not None})) or "none"
        raise CorpusError(f"{path} has no answer of the task `{task}` (its tasks: {known}); correct --task.")
    return (answer.output_ids for answer in mine)


def file_texts(paths: Sequence[Path], target: str, max_tokens: int) -> Iterator[Sequence[int]]:
    """Files of UTF-8 text in the target's tokens."""
    tokenizer = load_tokenizer(target)
    for path in paths:
        yield tokenizer(_text(path, max_tokens), add_special_tokens=False, verbose=False).input_ids


def _text(path: Path, max_tokens: int) -> str:
    try:
        size = path.stat().st_size
        if size > max_tokens * _MOST_BYTES_PER_TOKEN:
            raise CorpusError(
                f"{path} has {size:,} bytes, more than {max_tokens:,} tokens can be; give a smaller file."
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}); correct the path.") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not UTF-8 text; give text, not a binary file.") from None
    if "\0" in text:
        raise CorpusError(f"{path} holds zero bytes; give text, not a binary file.")
    return text


def make_corpus(out: Path, texts: Iterable[Sequence[int]], max_tokens: int, target: str | None) -> CorpusMade:
    """Write corpus.safetensors into the folder `out`. CorpusError where there is nothing to write, or too much of it,
    or ids that the target does not have (where that is a local folder)."""
    if not MIN_CAPACITY <= max_tokens <= MAX_CAPACITY:
        raise CorpusError(
            f"--max-tokens {max_tokens} cannot be; give a number from {MIN_CAPACITY:,} to {MAX_CAPACITY:,}."
        )
    kept: list[Sequence[int]] = []
    total = 0
    for text in texts:
        if not text:
            continue
        kept.append(text)
        total += len(text)
        if total + len(kept) > max_tokens:
            raise CorpusError(
                f"The corpus has more than {max_tokens:,} tokens; give less text, or a higher --max-tokens (and the"
                " drafter a `capacity` as high)."
            )
    if not kept:
        raise CorpusError("The corpus is empty; give answers or text with something in it.")
    _check_ids(kept, target)
    out.mkdir(parents=True, exist_ok=True)
    return CorpusMade(write_corpus(out, kept), len(kept), total)


def _check_ids(texts: Iterable[Sequence[int]], target: str | None) -> None:
    num_ids = None if target is None else target_vocab_size(TargetTokenizer.find(None, target, Path(target)))
    if num_ids is None:
        return
    wrong = next((token for text in texts for token in text if not 0 <= token < num_ids), None)
    if wrong is not None:
        raise CorpusError(
            f"The answers hold the token id {wrong}, and --target {target} has {num_ids:,}; give the answers of this"
            " target."
        )
