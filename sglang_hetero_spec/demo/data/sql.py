"""Questions about made-up tables and the SQL that answers them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from sglang_hetero_spec.demo.data.base import Example, Sources, example, join_and


@dataclass(frozen=True)
class Table:
    """Columns are (name, kind); kind `t` is text, `n` a number. `values` are what text columns may hold."""

    name: str
    text: tuple[str, ...]
    numbers: tuple[str, ...]
    child: str = ""


TABLES = [
    Table("employees", ("name", "city", "department", "title"), ("salary", "age", "years", "bonus"), "projects"),
    Table("products", ("name", "category", "brand", "colour"), ("price", "stock", "weight", "rating"), "sales"),
    Table("customers", ("name", "city", "country", "email"), ("age", "points", "visits", "balance"), "orders"),
    Table("books", ("title", "author", "language", "publisher"), ("pages", "price", "year", "copies"), "loans"),
    Table("students", ("name", "school", "subject", "country"), ("grade", "age", "credits", "absences"), "exams"),
    Table(
        "flights", ("origin", "destination", "airline", "status"), ("distance", "delay", "seats", "fare"), "bookings"
    ),
    Table("movies", ("title", "director", "genre", "studio"), ("year", "rating", "budget", "minutes"), "reviews"),
    Table("songs", ("title", "artist", "genre", "label"), ("seconds", "plays", "year", "likes"), "streams"),
    Table("hotels", ("name", "city", "owner", "region"), ("stars", "rooms", "price", "floors"), "stays"),
    Table("patients", ("name", "ward", "doctor", "city"), ("age", "height", "weight", "visits"), "treatments"),
]
CHILD_NUMBERS = ("amount", "score", "quantity", "cost", "days", "total")
VALUES = {
    "city": ["Paris", "Berlin", "London", "Madrid", "Rome", "Vienna", "Oslo", "Lisbon", "Boston", "Chicago"],
    "country": ["France", "Germany", "Spain", "Italy", "Norway", "Brazil", "Canada", "Japan", "India", "Kenya"],
    "department": ["Sales", "Finance", "Marketing", "Research", "Support", "Legal"],
    "category": ["Toys", "Garden", "Kitchen", "Sports", "Music", "Office"],
    "genre": ["Drama", "Comedy", "Jazz", "Rock", "Horror", "Western"],
    "colour": ["Red", "Blue", "Green", "Black", "White", "Yellow"],
    "language": ["English", "French", "German", "Spanish", "Latin", "Greek"],
    "subject": ["Physics", "History", "Biology", "Art", "Geography", "Chemistry"],
    "status": ["Open", "Closed", "Delayed", "Cancelled", "Active", "Pending"],
    "region": ["North", "South", "East", "West", "Coast", "Mountain"],
}
_OPS = (
    (">", "greater than"),
    ("<", "less than"),
    (">=", "at least"),
    ("<=", "at most"),
    (">", "above"),
    ("<", "below"),
)
_AGG = (("AVG", "average"), ("MAX", "highest"), ("MIN", "lowest"), ("SUM", "total"))
_NAMES = [
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Irene",
    "Jack",
    "Karen",
    "Louis",
    "Maria",
    "Nina",
    "Oscar",
    "Paula",
]


@dataclass(frozen=True)
class _Picked:
    """The table with the columns that this prompt shows."""

    name: str
    text: list[str]
    numbers: list[str]
    child: str
    child_number: str

    @property
    def columns(self) -> list[str]:
        return ["id", *self.text, *self.numbers]


def _pick(rng: random.Random) -> _Picked:
    table = rng.choice(TABLES)
    text = rng.sample(table.text, rng.choice((2, 3, 4)))
    numbers = rng.sample(table.numbers, rng.choice((2, 3, 4)))
    return _Picked(table.name, text, numbers, table.child, rng.choice(CHILD_NUMBERS))


def _value(rng: random.Random, column: str) -> str:
    return rng.choice(VALUES.get(column, _NAMES))


def _condition(rng: random.Random, table: _Picked) -> tuple[str, str]:
    if rng.random() < 0.5:
        column, (op, words) = rng.choice(table.numbers), rng.choice(_OPS)
        number = rng.choice((rng.randint(2, 99), 10 * rng.randint(1, 99), 100 * rng.randint(1, 50)))
        return f"{column} {op} {number}", f"the {column} is {words} {number}"
    column = rng.choice(table.text)
    value = _value(rng, column)
    return f"{column} = '{value}'", f"the {column} is {value}"


def _conditions(rng: random.Random, table: _Picked) -> tuple[str, str]:
    first, second = _condition(rng, table), _condition(rng, table)
    if rng.random() < 0.5 or first[0].split()[0] == second[0].split()[0]:
        return first
    glue = rng.choice(("AND", "AND", "OR"))
    return f"{first[0]} {glue} {second[0]}", f"{first[1]} {glue.lower()} {second[1]}"


def _list(rng: random.Random, table: _Picked) -> tuple[str, str]:
    columns = rng.sample(table.columns[1:], rng.choice((2, 3, 3)))
    where, words = _conditions(rng, table)
    order, way = rng.choice(table.numbers), rng.choice(("ASC", "DESC"))
    sql = f"SELECT {', '.join(columns)}\nFROM {table.name}\nWHERE {where}\nORDER BY {order} {way}"
    says = "from lowest to highest" if way == "ASC" else "from highest to lowest"
    ask = f"Show the {join_and(columns)} of the {table.name} where {words}, sorted by {order} {says}"
    if rng.random() < 0.5:
        limit = rng.randint(2, 20)
        return f"{ask}, only the first {limit}.", f"{sql}\nLIMIT {limit};"
    return f"{ask}.", f"{sql};"


def _group(rng: random.Random, table: _Picked) -> tuple[str, str]:
    group, number, (function, word) = rng.choice(table.text), rng.choice(table.numbers), rng.choice(_AGG)
    where, words = _condition(rng, table)
    label = f"{word}_{number}"
    sql = f"SELECT {group}, {function}({number}) AS {label}\nFROM {table.name}\nWHERE {where}\nGROUP BY {group}"
    ask = f"What is the {word} {number} for each {group} among the {table.name} where {words}?"
    if rng.random() < 0.4:
        least = rng.randint(2, 30)
        return f"{ask} Only groups with more than {least} rows.", f"{sql}\nHAVING COUNT(*) > {least};"
    return ask, f"{sql}\nORDER BY {label} DESC;"


def _join(rng: random.Random, table: _Picked) -> tuple[str, str]:
    column, number = rng.choice(table.text), table.child_number
    where, words = _condition(rng, table)
    key = f"{table.name[:-1]}_id"
    sql = (
        f"SELECT {table.name}.{column}, SUM({table.child}.{number}) AS {number}_sum\nFROM {table.name}\n"
        f"JOIN {table.child} ON {table.child}.{key} = {table.name}.id\nWHERE {table.name}.{where.split(' OR ')[0]}\n"
        f"GROUP BY {table.name}.{column};"
    )
    return f"For each {column} give the sum of {number} of the {table.child} of {table.name} where {words}.", sql


def _change(rng: random.Random, table: _Picked) -> tuple[str, str]:
    where, words = _conditions(rng, table)
    if rng.random() < 0.35:
        return f"Delete all {table.name} where {words}.", f"DELETE FROM {table.name}\nWHERE {where};"
    number, text = rng.choice(table.numbers), rng.choice(table.text)
    step, value = rng.randint(1, 50), _value(rng, text)
    sql = f"UPDATE {table.name}\nSET {number} = {number} + {step}, {text} = '{value}'\nWHERE {where};"
    return f"Increase the {number} by {step} and set the {text} to {value} for the {table.name} where {words}.", sql


_WORDING = (
    "Write a SQL query.", "Given the database schema, answer with one SQL statement.", "SQL please.",
    "Turn the request into SQL for these tables.", "You are a database assistant. Reply with SQL only.",
    "Which SQL statement does this?", "I have this schema and need a query.",
)  # fmt: skip


def _schema(rng: random.Random, table: _Picked) -> str:
    own, key = ", ".join(table.columns), f"{table.name[:-1]}_id"
    if rng.random() < 0.5:
        return f"Tables: {table.name}({own}); {table.child}(id, {key}, {table.child_number})"
    return f"Schema:\n{table.name}: {own}\n{table.child}: id, {key}, {table.child_number}"


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """A schema of two tables, a request in words, and one statement, a clause a line."""
    del sources
    while True:
        table = _pick(rng)
        ask, sql = rng.choice((_list, _list, _group, _join, _change))(rng, table)
        content = f"{_schema(rng, table)}\n{rng.choice(('Request: ', 'Question: ', ''))}{ask}"
        yield example("sql", rng.choice(_WORDING), content, sql, f"{table.name}:{ask}")
