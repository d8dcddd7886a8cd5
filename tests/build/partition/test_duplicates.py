from __future__ import annotations

import random

from sglang_hetero_spec.build.partition import Duplicate, distinct_prompts
from sglang_hetero_spec.build.partition.duplicates import near_duplicates
from sglang_hetero_spec.build.prompts import Message, chat_prompt, plain_prompt
from tests.build.partition.data import toy_tasks


def long_text(seed: int, words: int = 60) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(words))


def test_what_is_the_same_is_left_out_and_counted() -> None:
    one, two = plain_prompt("Say a."), plain_prompt("Say b.")
    found = distinct_prompts([one, two, one, one])
    assert found.prompts == (one, two)
    assert found.requests == (3, 1)
    assert found.duplicates == (Duplicate(one.id, one.id, "exact"),) * 2


def test_case_spaces_and_punctuation_make_no_difference() -> None:
    assert near_duplicates(["Say  a word", "say a word!", "Say another word"]) == {1: 0}
    assert near_duplicates(["+", "-", "+"]) == {2: 0}


def test_a_few_other_characters_make_no_difference_in_a_long_text() -> None:
    base = long_text(0)
    other = base.replace(base.split()[7], "typo")
    assert near_duplicates([long_text(1), base, long_text(2), other]) == {3: 1}


def test_a_common_beginning_makes_no_duplicate() -> None:
    shared = long_text(0, 300)
    texts = [f"{shared} {long_text(seed, 12)}" for seed in range(1, 40)]
    assert near_duplicates(texts) == {}
    assert near_duplicates([*texts, texts[3] + " x"]) == {39: 3}


def test_different_contents_in_one_wording_stay() -> None:
    assert near_duplicates(toy_tasks(100)[0]) == {}


def test_chats_of_one_question_and_other_instructions_stay() -> None:
    chats = [chat_prompt([Message("system", long_text(seed)), Message("user", "Why?")]) for seed in range(3)]
    assert distinct_prompts(chats).prompts == tuple(chats)


def test_near_ones_count_for_the_first() -> None:
    texts = ["Tell me of Rome", "tell me of rome.", "Tell me of Oslo", "Tell me of Rome?"]
    found = distinct_prompts([plain_prompt(text) for text in texts])
    assert [prompt.text for prompt in found.prompts] == ["Tell me of Rome", "Tell me of Oslo"]
    assert found.requests == (3, 1)
    assert {duplicate.kind for duplicate in found.duplicates} == {"near"}
