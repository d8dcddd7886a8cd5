"""Tokenizers of every family, trained on the spot, in folders as Hugging Face writes them.

Not named tokenizers.py: run from this folder that would hide the library.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = """Ein Vogel wollte Hochzeit machen in dem grünen Walde. Größe, Straße, façade, naïve, Ångström.
日本語の文章は空白なしで書かれる。中国語も同じです。中国中国中国。汉字与词语,没有空格。
اللغة العربية تكتب من اليمين إلى اليسار. مرحبا بالعالم. السلام عليكم.
Привет, мир! Как дела? Всё хорошо. emoji: 😀😀😀 👍🏽 👨‍👩‍👧 ❤️ e\u0301 a\u0308 n\u0303
tabs\there\tand\tthere\r\nCRLF\r\n    indented    by    spaces        eight
"""
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SPECIALS = ["<pad>", "<s>", "</s>"]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA3_REGEX = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""  # noqa: E501
DEMO_TARGET = Path(__file__).parents[2] / "sglang_hetero_spec" / "demo" / "assets" / "target"


@cache
def corpus() -> tuple[str, ...]:
    lines = Path(textwrap.__file__).read_text() + Path(json.__file__).read_text()
    return tuple((lines + WORDS * 20).splitlines(keepends=True))


@cache
def _root() -> TemporaryDirectory:
    """Gone when the test run is."""
    return TemporaryDirectory(prefix="vocab-test-")


def save(
    tokenizer: Tokenizer, roles: dict[str, str] | None = None, change: Callable[[Any], None] | None = None
) -> Path:
    """A new folder. change: edits the parsed tokenizer.json."""
    parsed = json.loads(tokenizer.to_str())
    if change is not None:
        change(parsed)
    folder = Path(mkdtemp(dir=_root().name))
    write(folder, parsed, ROLES if roles is None else roles)
    return folder


def write(folder: Path, parsed: dict[str, Any], roles: dict[str, str]) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(parsed, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))


def add_bos(tokenizer: Tokenizer) -> None:
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])


def byte_bpe(size: int = 900, regex: str | None = None, specials: tuple[str, ...] = tuple(SPECIALS)) -> Path:
    """GPT-2 (regex None) or Llama-3 style, with a non-special added token and one that stands for spaces."""
    tokenizer = Tokenizer(models.BPE())
    split = [] if regex is None else [pre_tokenizers.Split(Regex(regex), "isolated")]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("     ", normalized=False)])
    add_bos(tokenizer)
    return save(tokenizer)


def sentencepiece(size: int = 1100, style: str = "llama") -> Path:
    """BPE with byte fallback. llama: a prefix space, no pre-tokenizer; gemma: the same without the prefix space;
    metaspace: pre-tokenizer and decoder Metaspace, no bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=style != "metaspace", fuse_unk=True))
    # SentencePiece trains on words even where its model later runs over whole lines.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_too = [] if style == "metaspace" else BYTE_TOKENS
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*specials, *bytes_too], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    if style == "metaspace":
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = None
        replace, prepend = normalizers.Replace(" ", "▁"), normalizers.Prepend("▁")
        tokenizer.normalizer = normalizers.Sequence([prepend, replace] if style == "llama" else [replace])
        strip = [decoders.Strip(" ", 1, 0)] if style == "llama" else []
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        tokenizer.decoder = decoders.Sequence(parts)
    add_bos(tokenizer)
    return save(tokenizer, change=_bytes_are_ordinary)


def _bytes_are_ordinary(parsed: dict[str, Any]) -> None:
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["content"] not in BYTE_TOKENS]


def unigram(size: int = 700) -> Path:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return save(tokenizer)


def characters() -> Path:
    """One token per character of the corpus: a BPE without merges. Everything else is unknown."""
    found = sorted({char for line in corpus() for char in line})
    vocab = {token: i for i, token in enumerate([*SPECIALS, "<unk>", *found])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens([*SPECIALS, "<unk>"])
    tokenizer.decoder = decoders.Fuse()
    return save(tokenizer)


def plain_bytes() -> Path:
    """One token per byte, in GPT-2's alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIALS, *alphabet])}, merges=[]))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return save(tokenizer)


def byt5() -> Path:
    """One token per byte, as byte-fallback tokens behind three specials."""
    vocab = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *BYTE_TOKENS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return save(tokenizer)


def wordpiece() -> Path:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return save(tokenizer, {})


MAKERS: dict[str, Callable[[], Path]] = {
    "gpt2": byte_bpe,
    "llama3": lambda: byte_bpe(1200, LLAMA3_REGEX, ("<s>", "<|end|>", "</s>")),
    "llama2": sentencepiece,
    "gemma": lambda: sentencepiece(800, "gemma"),
    "metaspace": lambda: sentencepiece(1000, "metaspace"),
    "unigram": unigram,
    "characters": characters,
    "bytes": plain_bytes,
    "byt5": byt5,
    "demo": lambda: DEMO_TARGET,
}


@cache
def folder_of(name: str) -> Path:
    """Made once per test run."""
    return MAKERS[name]()
