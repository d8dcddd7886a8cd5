"""Prompts of four plainly different tasks, no two alike, made from a seed; no file is needed."""

from __future__ import annotations

import random

_NAMES = ("Tom", "Ada", "Mia", "Ben", "Eva", "Leo", "Ida", "Max", "Una", "Gus", "Fay", "Kim")
_THINGS = ("apples", "books", "coins", "stamps", "shells", "cards", "pens", "cups", "keys", "maps", "hats", "nuts")
_VERBS = ("sort", "count", "merge", "filter", "reverse", "copy", "split", "join", "find", "drop", "hash", "pack")
_PLACES = ("park", "museum", "harbour", "market", "garden", "library", "castle", "station", "bridge", "school")
_ADJECTIVES = ("old", "quiet", "large", "bright", "narrow", "famous", "empty", "cold", "green", "busy")


def toy_tasks(per_task: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Prompts and the task of each, interleaved."""
    rng = random.Random(seed)
    makers = {"code": _code, "sums": _sums, "letters": _letters, "places": _places}
    found: dict[str, str] = {}
    for number in range(per_task * len(makers)):
        task = list(makers)[number % len(makers)]
        prompt = makers[task](rng)
        while prompt in found:
            prompt = makers[task](rng)
        found[prompt] = task
    return list(found), list(found.values())


def toy_answers(tasks: list[str]) -> list[str]:
    """What a target might answer."""
    answers = {
        "code": "def run(items):\n    return sorted(items)\n",
        "sums": "There are 12 left. Answer: 12",
        "letters": "Dear Sir,\n\nwith kind regards,\nyours",
        "places": "It lies in the middle of the town, and many people visit it.",
    }
    return [f"{answers[task]} {number}" for number, task in enumerate(tasks)]


def _code(rng: random.Random) -> str:
    verb, thing, other = rng.choice(_VERBS), rng.choice(_THINGS), rng.choice(_VERBS)
    ask = rng.choice(("Write a Python function", "Implement this in Python:", "Please write code:"))
    return f"{ask} `def {verb}_{thing}({thing}, limit={rng.randint(2, 99)})` that should {verb} and {other} a list."


def _sums(rng: random.Random) -> str:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    ask = rng.choice((f"How many {thing} does {name} have now?", f"How many {thing} are left in the end?"))
    return (
        f"{name} has {rng.randint(2, 99)} {thing} and gives {rng.randint(2, 99)} of them to {rng.choice(_NAMES)}. {ask}"
    )


def _letters(rng: random.Random) -> str:
    ask = rng.choice(("Write a letter", "Draft a short email", "Compose a polite note"))
    return (
        f"{ask} to {rng.choice(_NAMES)} from {rng.choice(_NAMES)}, to say thank you for the {rng.choice(_ADJECTIVES)}"
        f" {rng.choice(_THINGS)} and to propose a meeting at the {rng.choice(_PLACES)}."
    )


def _places(rng: random.Random) -> str:
    first, second = rng.choice(_ADJECTIVES), rng.choice(_ADJECTIVES)
    ask = rng.choice(("Translate into French", "Give the French for this", "Say this in French"))
    where = f"the {first} {rng.choice(_PLACES)} is behind the {second} {rng.choice(_PLACES)}"
    return f"{ask}: {where}, where {rng.choice(_NAMES)} waits."
