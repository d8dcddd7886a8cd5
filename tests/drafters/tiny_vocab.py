"""Pairs of vocabularies of a few tokens, made so that they share some, hardly any, or spell one text in many ways."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models

from sglang_hetero_spec.vocab.intersection import intersect
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.vocab.token_bytes import read_token_bytes
from tests.vocab.made_tokenizers import add_bos, save

ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

# target tokens, draft tokens; the ids are their places. A token of two letters is written where its halves meet.
TOKENS: dict[str, tuple[list[str], list[str]]] = {
    # Either side has tokens that the other lacks; the drafter cannot read `c` at all.
    "partial": (["</s>", "a", "b", "ab", "c"], ["b", "ba", "a", "d", "</s>"]),
    # One token, and no end of text.
    "hardly any": (["a", "bb", "ab", "ba", "<unk>"], ["b", "a"]),
    # The same text, no token in common.
    "none": (["ab", "ba", "aa", "bb", "<unk>"], ["b", "a"]),
    # The drafter writes `ab`, `ba` and `aba` in several ways, and text that begins with no target token.
    "ambiguous": (["a", "ab", "ba", "</s>", "aba", "<unk>"], ["ab", "a", "c", "b", "</s>"]),
    # bos, padding and another special of one side only.
    "specials": (["<s>", "<pad>", "a", "</s>", "<tool>", "b", "ab"], ["b", "</s>", "<s>", "a", "<other>"]),
    "the same": (["a", "b", "</s>", "ab"], ["a", "b", "</s>", "ab"]),
}
NAMES = sorted(TOKENS)
WITH_SHARED = [name for name in NAMES if name != "none"]


@cache
def pairing(name: str) -> Pairing:
    target, draft = (_side(tuple(tokens)) for tokens in TOKENS[name])
    return Pairing(target, draft, intersect(target, draft))


def _side(tokens: tuple[str, ...]) -> MidText:
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(_model(vocab))
    tokenizer.add_special_tokens([token for token in tokens if token.startswith("<")])
    tokenizer.decoder = decoders.Fuse()
    if "<s>" in vocab:
        add_bos(tokenizer)
    return MidText(read_token_bytes(save(tokenizer, {role: name for role, name in ROLES.items() if name in vocab})))


def _model(vocab: dict[str, int]) -> models.Model:
    """BPE, or Unigram where longer tokens cannot be put together from single letters."""
    text = [token for token in vocab if not token.startswith("<")]
    if all(letter in vocab for token in text for letter in token):
        cuts = [(token[:i], token[i:]) for token in text for i in range(1, len(token))]
        return models.BPE(vocab=vocab, merges=[pair for pair in cuts if vocab.keys() >= {*pair}])
    return models.Unigram([(token, -1.0) for token in vocab], unk_id=vocab["<unk>"])
