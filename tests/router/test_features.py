from __future__ import annotations

import os
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_hetero_spec.router.excerpt import Excerpt, excerpt_ids, excerpt_text
from sglang_hetero_spec.router.features import FeatureHasher, _folded
from sglang_hetero_spec.router.schema import FeatureSpec

ROOT = Path(__file__).resolve().parents[2]
HASHER = FeatureHasher(FeatureSpec())
ANY_TEXT = st.text(alphabet=st.characters(), max_size=1500)  # lone surrogates included


def reference_buckets(text: str, spec: FeatureSpec) -> set[int]:
    """The feature definition once more, without numpy and one n-gram at a time."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > spec.head_bytes + spec.tail_bytes:
        encoded = encoded[: spec.head_bytes] + b"\xfd" + encoded[-spec.tail_bytes :]
    folded = b""
    for byte in b"\xfe" + encoded + b"\xff":
        if 65 <= byte <= 90:
            byte += 32
        elif 48 <= byte <= 57:
            byte = 48
        elif byte == 127 or (byte < 32 and byte != 10):
            byte = 32
        folded += bytes([byte])
    words, word = [b"\xfe"], b""
    for byte in folded + b" ":
        if 97 <= byte <= 122 or byte in (48, 95) or 128 <= byte < 248:
            word += bytes([byte])
        elif word:
            words.append(word)
            word = b""
    words.append(b"\xff")

    def bucket(value: int) -> int:
        return (value * 0x9E3779B1 & 0xFFFFFFFF) >> (32 - spec.bucket_bits)

    found = {bucket(zlib.crc32(word)) for word in words[1:-1]}
    for left, right in pairwise(words):
        found.add(bucket((zlib.crc32(left) * 0xC2B2AE35 + zlib.crc32(right)) & 0xFFFFFFFF))
    for n in spec.char_ngrams:
        for start in range(len(folded) - n + 1):
            run = int.from_bytes(folded[start : start + n], "little")
            found.add((1 << spec.bucket_bits) + bucket(run))
    return found


@given(ANY_TEXT)
def test_the_buckets_are_those_of_the_definition(text: str) -> None:
    spec = FeatureSpec(head_bytes=100, tail_bytes=60, bucket_bits=10, char_ngrams=(1, 2, 3, 4))
    hasher = FeatureHasher(spec)
    buckets, _ = hasher.vector(hasher.excerpt(text))
    assert buckets.tolist() == sorted(reference_buckets(text, spec))


@given(ANY_TEXT)
def test_what_stands_behind_the_buckets_is_none_of_the_characters(text: str) -> None:
    """Else the last bucket would be lost where it has the same number."""
    padded, _ = HASHER._padded_buckets(_folded(HASHER.excerpt(text)))
    assert padded[-1] < HASHER.group_buckets <= padded[-2]


@given(ANY_TEXT)
def test_each_half_has_its_length_whatever_the_text(text: str) -> None:
    buckets, values = HASHER.vector(HASHER.excerpt(text))
    words = buckets < HASHER.group_buckets
    assert np.linalg.norm(values[words]) == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(values[~words]) == pytest.approx(3, rel=1e-5)


@given(ANY_TEXT)
def test_a_term_for_every_bucket(text: str) -> None:
    excerpt = HASHER.excerpt(text)
    assert len(HASHER.terms(excerpt)) == len(HASHER.buckets(excerpt))


def buckets_of_terms(text: str) -> dict[tuple[str, str], int]:
    excerpt = HASHER.excerpt(text)
    pairs = zip(HASHER.terms(excerpt), HASHER.buckets(excerpt).tolist(), strict=True)
    return {(term.sort, HASHER.readable(excerpt, term.start, term.end)): bucket for term, bucket in pairs}


def test_terms_stand_beside_their_own_buckets() -> None:
    terms = buckets_of_terms("One more zebra, please.")
    assert terms["word", "zebra"] == buckets_of_terms("zebra")["word", "zebra"]
    assert terms["pair", "^one"] == buckets_of_terms("one?")["pair", "^one"]
    assert terms["pair", "zebra, please"] == buckets_of_terms("a zebra PLEASE")["pair", "zebra please"]
    assert terms["characters", "se.$"] == buckets_of_terms("these.")["characters", "se.$"] >= HASHER.group_buckets
    assert len(set(terms.values())) == len(terms)


def test_only_head_and_tail_count() -> None:
    spec = HASHER.spec
    head, tail = "h" * spec.head_bytes, "t" * spec.tail_bytes
    first, second = (HASHER.vector(HASHER.excerpt(head + middle + tail)) for middle in ("x", "Write a poem. " * 9000))
    assert first[0].tolist() == second[0].tolist()
    other = HASHER.vector(HASHER.excerpt("H!" + head[2:] + tail))
    assert first[0].tolist() != other[0].tolist()
    whole = HASHER.vector(HASHER.excerpt(head + tail))
    assert first[0].tolist() != whole[0].tolist(), "that something was left out is itself seen"


@given(st.text(alphabet=st.characters(), min_size=0, max_size=300), st.integers(16, 60), st.integers(16, 60))
def test_an_excerpt_is_the_ends_of_the_utf8(text: str, head: int, tail: int) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    whole = len(encoded) <= head + tail
    expected = Excerpt(encoded) if whole else Excerpt(encoded[:head], encoded[-tail:])
    assert excerpt_text(text, head, tail) == expected


def test_a_huge_text_is_cut_before_anything_else() -> None:
    class Watched(str):
        def __getitem__(self, key):  # type: ignore[no-untyped-def]
            part = super().__getitem__(key)
            assert len(part) <= 641
            return part

        def encode(self, *args):  # type: ignore[no-untyped-def]
            raise AssertionError("the whole text was encoded")

    assert HASHER.excerpt(Watched("x" * 100_000)) == HASHER.excerpt("x" * 50_000)


def test_ids_are_decoded_at_the_ends_only() -> None:
    asked: list[int] = []

    def decode(ids: list[int]) -> str:
        asked.extend(ids)
        return "".join(f"{i:04d}" for i in ids)

    excerpt = excerpt_ids(range(9000), decode, 40, 24)
    assert asked == [*range(10), *range(8994, 9000)]
    assert excerpt == excerpt_text("".join(f"{i:04d}" for i in range(9000)), 40, 24)


def test_few_ids_are_read_like_their_text() -> None:
    def decode(ids: list[int]) -> str:
        return "".join(f"{i:04d}" for i in ids)

    assert excerpt_ids(range(16), decode, 40, 24) == excerpt_text(decode(list(range(16))), 40, 24)


def test_tokens_longer_than_four_bytes_do_not_enlarge_the_excerpt() -> None:
    excerpt = excerpt_ids(range(1000), lambda ids: "a long token " * len(ids), 40, 24)
    assert excerpt.tail is not None
    assert (len(excerpt.head), len(excerpt.tail)) == (40, 24)


@pytest.mark.parametrize("text", ["", " ", "\n\t \r", "\x00\x01\x02", "\x1b\x7f", " " * 5000])
def test_blank(text: str) -> None:
    assert HASHER.excerpt(text).is_blank


@pytest.mark.parametrize("text", ["x", " ?", "\n\n\x00a", " " * 5000 + "x", "\ud800", "日"])
def test_not_blank(text: str) -> None:
    assert not HASHER.excerpt(text).is_blank


def test_the_same_in_every_process() -> None:
    """And the same as when routers were saved: these numbers may not change under this name."""
    code = (
        "from sglang_hetero_spec.router.features import *\n"
        "h = FeatureHasher(FeatureSpec(head_bytes=320, tail_bytes=320))\n"
        "b, v = h.vector(h.excerpt('Translate: 24 H\\u00fcte \\ud800\\x00 ' * 99))\n"
        "import zlib; print(len(b), zlib.crc32(b.tobytes()), zlib.crc32(v.tobytes()))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for seed in ("0", "1", "4294967295")
    }
    assert answers == {"72 2707919185 880581847\n"}
