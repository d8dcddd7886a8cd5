"""Fields to sentences (E2E), and the pairs that the JSON task turns round."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sglang_hetero_spec.demo.data.base import Example, Sources, example, is_heldout, pick

Fields = dict[str, str]

FIRST = [
    "Golden",
    "Silver",
    "Blue",
    "Green",
    "Old",
    "Royal",
    "Little",
    "Red",
    "Happy",
    "Quiet",
    "Lucky",
    "Grand",
    "White",
    "Hidden",
    "Sunny",
    "Rusty",
    "Crystal",
    "Ivory",
    "Copper",
    "Velvet",
    "Amber",
    "Wild",
    "Jolly",
    "Stone",
]
SECOND = [
    "Lantern",
    "Harbour",
    "Garden",
    "Dragon",
    "Anchor",
    "Orchard",
    "Spoon",
    "Kettle",
    "Table",
    "Fox",
    "Bridge",
    "Tower",
    "Meadow",
    "Pepper",
    "Olive",
    "Rose",
    "Barrel",
    "Mill",
    "Swan",
    "Compass",
    "Oak",
    "Lion",
    "River",
    "Castle",
]
_CHOICES: dict[str, tuple[str, ...]] = {
    "eatType": ("restaurant", "pub", "coffee shop"),
    "food": ("Chinese", "English", "French", "Indian", "Italian", "Japanese", "Fast food"),
    "priceRange": ("cheap", "moderate", "high", "less than £20", "£20-25", "more than £30"),
    "customer rating": ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
    "area": ("city centre", "riverside"),
    "familyFriendly": ("yes", "no"),
}


def parse_mr(text: str) -> Fields:
    """`name[X], food[Y]` of E2E as a dict, in the order given."""
    return dict(re.findall(r"(?:^|, )([A-Za-z ]+)\[([^\]]*)\]", text))


@lru_cache(maxsize=2)
def _real(path: Path | None) -> tuple[tuple[str, str], ...]:
    if path is None or not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple((row["mr"], " ".join(row["ref"].split())) for row in csv.DictReader(file))


def _rename(rng: random.Random, fields: Fields, sentence: str) -> tuple[Fields, str]:
    """New names for the place and its neighbour, so that a model has to copy and cannot know by heart."""
    renamed = dict(fields)
    for field in ("name", "near"):
        old = fields.get(field)
        if old and old in sentence and rng.random() < 0.8:
            renamed[field] = new = f"{pick(rng, 'The ', '')}{rng.choice(FIRST)} {rng.choice(SECOND)}"
            sentence = sentence.replace(old, new).replace("The The ", "The ").replace("the The ", "the ")
    return renamed, sentence


def _made_up(rng: random.Random) -> tuple[Fields, str]:
    fields = {"name": f"The {rng.choice(FIRST)} {rng.choice(SECOND)}"}
    for field, options in _CHOICES.items():
        if field == "eatType" or rng.random() < 0.62:
            fields[field] = rng.choice(options)
    if rng.random() < 0.5:
        fields["near"] = f"{rng.choice(FIRST)} {rng.choice(SECOND)}"
    return fields, _realise(rng, fields)


def _realise(rng: random.Random, fields: Fields) -> str:
    food = f"{fields['food']} " if "food" in fields else ""
    sentence = f"{fields['name']} is a {food}{fields['eatType']}"
    if "area" in fields:
        sentence += (
            " in the city centre"
            if fields["area"] == "city centre"
            else pick(rng, " by the river", " in the riverside area")
        )
    if "near" in fields:
        sentence += f" near {fields['near']}"
    more = []
    if "priceRange" in fields:
        price = fields["priceRange"]
        more.append(f"prices are {price}" if "£" in price else f"the price range is {price}")
    if "customer rating" in fields:
        more.append(f"customers rate it {fields['customer rating']}")
    if "familyFriendly" in fields:
        more.append("children are welcome" if fields["familyFriendly"] == "yes" else "it is not family friendly")
    if not more:
        return sentence + "."
    tail = " and ".join(more)
    return f"{sentence}. {tail[0].upper()}{tail[1:]}."


def _pairs(rng: random.Random, sources: Sources) -> Iterator[tuple[Fields, str, str]]:
    """Fields, sentence, and the key of the content (the fields without the names)."""
    rows = _real(sources.data / "e2e_dev.csv" if sources.data else None)
    while True:
        if rows and rng.random() < 0.8:
            mr, sentence = rng.choice(rows)
            fields, sentence = _rename(rng, parse_mr(mr), sentence)
        else:
            fields, sentence = _made_up(rng)
        plain = sorted(f"{key}={value}" for key, value in fields.items() if key not in ("name", "near"))
        yield fields, sentence, "|".join(plain)


_ASK_TEXT = (
    "Describe this restaurant in a sentence or two.", "Write a short description from these fields.",
    "Turn the following data into natural text.", "Write one line for a travel guide about this place.",
    "Make a fluent description out of these attributes.", "Use all the facts below in a short review text.",
)  # fmt: skip


def _show(style: int, fields: Fields) -> str:
    if style == 0:
        return ", ".join(f"{key}[{value}]" for key, value in fields.items())
    if style == 1:
        return "\n".join(f"- {key}: {value}" for key, value in fields.items())
    return "; ".join(f"{key} = {value}" for key, value in fields.items())


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """One or two records of fields; the answer describes each, a line a record."""
    pairs = _pairs(rng, sources)
    while True:
        fields, sentence, key = next(pairs)
        ask, style = rng.choice(_ASK_TEXT), rng.randrange(3)
        content, answer = _show(style, fields), sentence
        if rng.random() < 0.6:
            other, text, second = next(pairs)
            if is_heldout(f"e2e:{key}") != is_heldout(f"e2e:{second}"):
                continue
            content, answer = f"First:\n{content}\nSecond:\n{_show(style, other)}", f"First: {sentence}\nSecond: {text}"
        yield example("e2e", ask, content, answer, key)


_EVIDENCE = {
    "priceRange": r"pric|£|cheap|expens|cost|afford",
    "customer rating": r"rat|star|out of|review|customer",
    "familyFriendly": r"famil|kid|child|adult",
    "area": r"river|cent[er]",
    "eatType": r"restaurant|pub|coffee",
}


def _says(sentence: str, field: str, value: str) -> bool:
    """Whether the sentence speaks of the field: E2E's people left some out."""
    return bool(re.search(_EVIDENCE.get(field, re.escape(value)), sentence, re.IGNORECASE))


def described(rng: random.Random, sources: Sources) -> Iterator[tuple[str, Fields]]:
    """Sentences about a place, with the fields that each of them speaks of."""
    for fields, sentence, _ in _pairs(rng, sources):
        yield sentence, {field: value for field, value in fields.items() if _says(sentence, field, value)}
