"""Tokenizers of three families, as models of these families have them. None is the target's kind in all it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sglang_hetero_spec.vocab.alphabet import BYTE_TO_CHAR


@dataclass(frozen=True)
class Family:
    """A tokenizer and the names of its special tokens."""

    tokenizer: Tokenizer
    names: dict[str, str]

    def save(self, folder: Path, context: int) -> None:
        """tokenizer.json and tokenizer_config.json, as transformers and SGLang read them."""
        fast = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            model_max_length=context,
            clean_up_tokenization_spaces=False,
            **self.names,
        )
        fast.save_pretrained(folder)


def byte_level_bpe(texts: Iterable[str], size: int) -> Family:
    """As GPT-2 and Qwen: words by GPT-2's pattern, no bos, one special token that ends a text."""
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return Family(tokenizer, {"eos_token": end, "pad_token": end})


def sentencepiece(texts: Iterable[str], size: int) -> Family:
    """As Llama 2: U+2581 for a space, one before every text, bytes as <0xNN> for what has no piece, no pre-tokenizer.

    Pieces are learned within words, runs of spaces and of line ends, and single digits.
    """
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    words = Regex(r"\d|\n+|\u2581+(?=\u2581)|\u2581?[^\s\d\u2581]+|\u2581|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*specials, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Family(
        _as_sentencepiece(tokenizer, specials),
        {"unk_token": specials[0], "bos_token": specials[1], "eos_token": specials[2]},
    )


def _as_sentencepiece(trained: Tokenizer, specials: list[str]) -> Tokenizer:
    """The same pieces and merges; byte tokens are pieces like others, not special ones."""
    import json

    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", trained.token_to_id("<s>"))]
    )
    return tokenizer


def plain_bytes() -> Family:
    """As ByT5: three special tokens, then the 256 bytes in their order."""
    specials = ["<pad>", "</s>", "<unk>"]
    pieces = [*specials, *(BYTE_TO_CHAR[byte] for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return Family(tokenizer, {"pad_token": specials[0], "eos_token": specials[1], "unk_token": specials[2]})
