"""Sentences to JSON: places (E2E turned round), and generated orders, bookings, contacts, reports and flights."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from sglang_hetero_spec.demo.data.base import Example, Sources, example, join_and, pick
from sglang_hetero_spec.demo.data.math_word import NAMES, THINGS
from sglang_hetero_spec.demo.data.restaurants import described

PLACES_SHARE = 0.4
_CITIES = (
    "Oslo", "Paris", "Rome", "Lima", "Cairo", "Delhi", "Tokyo", "Berlin", "Madrid", "Dublin", "Prague", "Vienna",
    "Boston", "Sydney", "Lisbon", "Athens",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "March", "April", "May", "June", "July", "August", "October", "November")
Said = tuple[str, dict[str, object]]


def _order(rng: random.Random) -> Said:
    number, customer, city = rng.randint(1000, 9999), rng.choice(NAMES), rng.choice(_CITIES)
    items = [(rng.randint(2, 9), thing) for thing in rng.sample(THINGS, rng.choice((1, 2, 2, 3)))]
    paid, fast = rng.random() < 0.5, rng.random() < 0.5
    text = (
        f"Order {number} from {customer} in {city}: {join_and([f'{n} {thing}' for n, thing in items])}, "
        f"{'already paid' if paid else 'not paid yet'}, {'express' if fast else 'standard'} delivery."
    )
    return text, {
        "type": "order", "order": {"number": number, "status": "paid" if paid else "open"},
        "customer": {"name": customer, "city": city},
        "items": [{"product": thing, "quantity": n} for n, thing in items],
        "delivery": "express" if fast else "standard",
    }  # fmt: skip


def _booking(rng: random.Random) -> Said:
    guest, nights, people = rng.choice(NAMES), rng.randint(2, 9), rng.randint(2, 6)
    day, month, city = rng.randint(1, 28), rng.choice(_MONTHS), rng.choice(_CITIES)
    breakfast, view = rng.random() < 0.5, rng.choice(("sea", "garden", "street"))
    text = (
        f"{guest} books a room with a {view} view in {city} for {people} people from {day} {month}, {nights} nights, "
        f"{'with' if breakfast else 'without'} breakfast."
    )
    return text, {
        "type": "booking", "guest": {"name": guest, "party_size": people},
        "stay": {"city": city, "arrival": {"day": day, "month": month}, "nights": nights},
        "room": {"view": view, "breakfast": breakfast}, "confirmed": False,
    }  # fmt: skip


def _contact(rng: random.Random) -> Said:
    name, city, age = rng.choice(NAMES), rng.choice(_CITIES), rng.randint(18, 79)
    job = rng.choice(("teacher", "nurse", "engineer", "painter", "lawyer", "baker", "pilot", "farmer"))
    spoken = rng.sample(("English", "German", "French", "Spanish", "Italian"), 2)
    text = f"{name} is {age} years old, lives in {city}, works as a {job} and speaks {join_and(spoken)}."
    return text, {
        "type": "person", "person": {"name": name, "age": age, "profession": job},
        "address": {"city": city, "country": None}, "languages": spoken, "contact": {"email": None, "phone": None},
    }  # fmt: skip


def _weather(rng: random.Random) -> Said:
    city, day, high = rng.choice(_CITIES), rng.choice(_DAYS), rng.randint(12, 34)
    low, wind = high - rng.randint(3, 9), rng.randint(5, 60)
    sky = rng.choice(("sunny", "cloudy", "rainy", "foggy"))
    text = f"{day} in {city} will be {sky}, between {low} and {high} degrees, with wind of {wind} km/h."
    return text, {
        "type": "forecast", "location": {"city": city, "station": None}, "day": day, "sky": sky,
        "temperature": {"min": low, "max": high, "unit": "celsius"}, "wind": {"speed": wind, "unit": "km/h"},
        "warning": wind > 50,
    }  # fmt: skip


def _flight(rng: random.Random) -> Said:
    start, end = rng.sample(_CITIES, 2)
    number, day, hour = rng.randint(100, 999), rng.choice(_DAYS), rng.randint(6, 22)
    seat, late = rng.choice(("window", "aisle")), rng.choice((0, 10, 20, 45))
    text = f"Flight {number} leaves {start} for {end} on {day} at {hour}:00, {seat} seat, " + (
        f"{late} minutes late." if late else "on time."
    )
    return text, {
        "type": "flight", "flight": {"number": number, "status": "delayed" if late else "on time"},
        "departure": {"city": start, "day": day, "time": f"{hour}:00"}, "arrival": {"city": end},
        "seat": {"kind": seat, "row": None}, "delay_minutes": late,
    }  # fmt: skip


_KINDS: tuple[Callable[[random.Random], Said], ...] = (_order, _booking, _contact, _weather, _flight)
_ASK_PLACE = (
    "Extract the facts from the text as JSON.", "Return a JSON object with the fields of this place.",
    "Convert the description to JSON.", "Fill in a JSON record for the restaurant described here.",
    "Read the text and answer with JSON only.", "Structured output: give the attributes as a JSON object.",
)  # fmt: skip
_ASK_RECORD = (
    "Extract the facts from the text as JSON.", "Return this as a JSON object.", "Convert the message to JSON.",
    "Fill in a JSON record for what is described here.", "Read the text and answer with JSON only.",
    "Structured output: give the details as a JSON object.",
)  # fmt: skip


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """A sentence; the answer is one JSON object, indented."""
    places = described(rng, sources)
    while True:
        asks, (sentence, said) = (
            (_ASK_PLACE, next(places)) if rng.random() < PLACES_SHARE else (_ASK_RECORD, rng.choice(_KINDS)(rng))
        )
        answer = json.dumps(said, ensure_ascii=False, indent=2)
        key = "|".join(f"{name}={value}" for name, value in sorted(said.items()) if name not in ("name", "near"))
        yield example("json", rng.choice(asks), f"{pick(rng, 'Text: ', '', '')}{sentence}", answer, key)
