"""Arithmetic word problems with worked answers: GSM8K's, and generated ones that a small model can do."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sglang_hetero_spec.demo.data.base import Example, Sources, example

NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "Daniel",
    "Ella",
    "Frank",
    "Gina",
    "Hugo",
    "Ivy",
    "Jonas",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Peter",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
    "Wendy",
    "Adam",
    "Bella",
    "Chris",
    "Diana",
    "Emil",
    "Fiona",
    "George",
    "Hannah",
    "Ian",
]
THINGS = [
    "apples",
    "pencils",
    "stickers",
    "marbles",
    "cookies",
    "books",
    "shells",
    "cards",
    "balloons",
    "candles",
    "buttons",
    "coins",
    "stamps",
    "oranges",
    "flowers",
    "beads",
    "toys",
    "eggs",
    "photos",
    "badges",
]
REAL_SHARE = 0.15
FRIENDS = ("sister", "brother", "friend", "cousin", "neighbour", "teacher", "uncle")


@lru_cache(maxsize=2)
def _real(path: Path | None) -> tuple[tuple[str, str], ...]:
    if path is None or not path.is_file():
        return ()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = ((" ".join(row["question"].split()), _worked(row["answer"])) for row in rows)
    return tuple(pair for pair in pairs if len(pair[0]) < 420 and 60 < len(pair[1]) < 330)


def _worked(answer: str) -> str:
    """GSM8K's answer without the calculator marks, its last line written out."""
    return re.sub(r"#### *", "Answer: ", re.sub(r"<<[^>]*>>", "", answer)).strip()


def _give(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    have, give, friend = rng.randint(20, 60), rng.randint(2, 9), rng.choice(FRIENDS)
    more = rng.randint(5, 20)
    left = have - give
    return (
        f"{who} has {have} {thing}. {who} gives {give} {thing} to a {friend} and then buys {more} more. "
        f"How many {thing} does {who} have now?",
        f"{who} starts with {have} {thing} and gives away {give}.\n{have} - {give} = {left} {thing} are left.\n"
        f"Then {who} buys {more} more, so {left} + {more} = {left + more} {thing}.\nAnswer: {left + more}",
    )


def _boxes(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    boxes, each, lost = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 3)
    total = boxes * each
    return (
        f"There are {boxes} boxes with {each} {thing} in each box. {who} takes out {lost} {thing}. "
        f"How many {thing} are still in the boxes?",
        f"{boxes} boxes with {each} {thing} each make {boxes} x {each} = {total} {thing}.\n"
        f"{who} takes {lost} out, so {total} - {lost} = {total - lost} {thing} are still there.\n"
        f"Answer: {total - lost}",
    )


def _price(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    cost = count * price
    paid = rng.choice([note for note in (20, 50, 100) if note >= cost])
    return (
        f"{who} buys {count} {thing} for ${price} each and pays with a ${paid} bill. How much change does {who} get?",
        f"The {thing} cost {count} x ${price} = ${cost}.\nThe change is ${paid} - ${cost} = ${paid - cost}.\n"
        f"Answer: {paid - cost}",
    )


def _share(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    each, people, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)
    total = each * people
    return (
        f"{who} shares {total} {thing} equally among {people} children. One child then finds {extra} more. "
        f"How many {thing} does that child have?",
        f"Each child gets {total} / {people} = {each} {thing}.\n"
        f"With {extra} more, that child has {each} + {extra} = {each + extra} {thing}.\nAnswer: {each + extra}",
    )


def _week(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    daily, days, before = rng.randint(2, 9), rng.randint(2, 7), rng.randint(5, 30)
    made = daily * days
    return (
        f"{who} collects {daily} {thing} every day for {days} days. Before that {who} already had {before}. "
        f"How many {thing} does {who} have in the end?",
        f"In {days} days {who} collects {days} x {daily} = {made} {thing}.\n"
        f"Together with the first {before}, that is {made} + {before} = {made + before} {thing}.\n"
        f"Answer: {made + before}",
    )


def _twice(rng: random.Random, who: str, thing: str) -> tuple[str, str]:
    first, factor, other = rng.randint(3, 20), rng.choice((2, 3)), rng.choice(NAMES)
    word, more = {2: "twice", 3: "three times"}[factor], rng.randint(2, 9)
    second = first * factor
    return (
        f"{who} has {first} {thing}. {other} has {word} as many, and then finds {more} more. "
        f"How many {thing} does {other} have?",
        f"{other} first has {factor} x {first} = {second} {thing}.\n"
        f"After finding {more} more, {other} has {second} + {more} = {second + more} {thing}.\nAnswer: {second + more}",
    )


_KINDS = (_give, _boxes, _price, _share, _week, _twice)
_WORDING = (
    "Solve the problem step by step.", "Work out the answer and show your steps.", "Question:",
    "Here is a maths problem. Show how you solve it.", "Answer this word problem.", "Math homework, please explain:",
    "Think it through and end with the answer.",
)  # fmt: skip


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """A problem in words; the answer is a few worked lines and a last line `Answer: N`."""
    real = _real(sources.data / "gsm8k_train.jsonl" if sources.data else None)
    while True:
        if real and rng.random() < REAL_SHARE:
            problem, answer = rng.choice(real)
        else:
            problem, answer = rng.choice(_KINDS)(rng, rng.choice(NAMES), rng.choice(THINGS))
        yield example("math", rng.choice(_WORDING), problem, answer, problem)
