"""Python functions from a docstring: the standard library's own, and generated plain ones."""

from __future__ import annotations

import ast
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sglang_hetero_spec.demo.data.base import Example, Sources, example

_SKIP = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "idlelib",
    "turtledemo",
    "__pycache__",
    "_pyrepl",
}
_MAX_CHARS = 420
_MIN_CHARS = 90
REAL_SHARE = 0.2


@lru_cache(maxsize=1)
def stdlib_functions() -> tuple[tuple[str, str, str], ...]:
    """(signature, first line of the docstring, source) of short documented functions of this interpreter."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, tuple[str, str, str]] = {}
    for path in sorted(root.rglob("*.py")):
        if not _SKIP & set(path.relative_to(root).parts):
            for item in _functions(path):
                found.setdefault(item[2], item)
    return tuple(found.values())


def _functions(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            item = _function(node)
            if item:
                yield item


def _function(node: ast.FunctionDef) -> tuple[str, str, str] | None:
    lines = (ast.get_docstring(node) or "").strip().splitlines()
    doc = lines[0].strip() if lines else ""
    if not 12 < len(doc) < 110 or not doc.isascii() or '"' in doc or "\\" in doc:
        return None
    node.body[0] = ast.Expr(ast.Constant(doc))
    if len(node.body) < 2:
        return None
    signature = f"{node.name}({ast.unparse(node.args)})"
    source = ast.unparse(ast.fix_missing_locations(node))
    if not _MIN_CHARS < len(source) < _MAX_CHARS or not source.isascii():
        return None
    return signature, doc, source


_NOUNS = [
    "user",
    "order",
    "file",
    "book",
    "player",
    "item",
    "node",
    "record",
    "task",
    "message",
    "event",
    "product",
    "student",
    "account",
    "ticket",
    "image",
    "page",
    "token",
    "point",
    "server",
    "worker",
    "channel",
    "recipe",
    "vehicle",
]
_FIELDS = [
    "size",
    "price",
    "age",
    "score",
    "weight",
    "length",
    "rank",
    "count",
    "level",
    "width",
    "duration",
    "priority",
    "cost",
    "depth",
    "speed",
    "year",
]
_COMPARE = (("greater than", ">"), ("less than", "<"), ("at least", ">="), ("at most", "<="), ("equal to", "=="))


def _filtered(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    words, op = rng.choice(_COMPARE)
    limit = rng.choice(("limit", "threshold", "bound", "value"))
    return (
        f"select_{noun}s({noun}s, {limit})",
        f"Return the {noun}s whose {field} is {words} {limit}.",
        f"result = []\nfor {noun} in {noun}s:\n    if {noun}.{field} {op} {limit}:\n"
        f"        result.append({noun})\nreturn result",
    )


def _total(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    if rng.random() < 0.5:
        return (
            f"average_{field}({noun}s)",
            f"Return the average {field} of all {noun}s, or 0 if there are none.",
            f"if not {noun}s:\n    return 0\ntotal = 0\nfor {noun} in {noun}s:\n    total += {noun}.{field}\n"
            f"return total / len({noun}s)",
        )
    return (
        f"total_{field}({noun}s)",
        f"Return the sum of {field} over all {noun}s.",
        f"total = 0\nfor {noun} in {noun}s:\n    total += {noun}.{field}\nreturn total",
    )


def _best(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    word, op = rng.choice((("largest", ">"), ("smallest", "<")))
    return (
        f"{word}_{noun}({noun}s)",
        f"Return the {noun} with the {word} {field}, or None.",
        f"best = None\nfor {noun} in {noun}s:\n    if best is None or {noun}.{field} {op} best.{field}:\n"
        f"        best = {noun}\nreturn best",
    )


def _grouped(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    if rng.random() < 0.5:
        return (
            f"group_by_{field}({noun}s)",
            f"Return a dictionary from {field} to the list of {noun}s.",
            f"groups = {{}}\nfor {noun} in {noun}s:\n    groups.setdefault({noun}.{field}, []).append({noun})\n"
            "return groups",
        )
    return (
        f"count_by_{field}({noun}s)",
        f"Count how many {noun}s there are for each {field}.",
        f"counts = {{}}\nfor {noun} in {noun}s:\n    key = {noun}.{field}\n"
        "    counts[key] = counts.get(key, 0) + 1\nreturn counts",
    )


def _checked(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    words, op = rng.choice(_COMPARE[:2])
    return (
        f"check_{field}({noun}, limit=100)",
        f"Raise ValueError if the {field} of the {noun} is {words} limit.",
        f"if {noun}.{field} {op} limit:\n"
        f"    raise ValueError(f'{noun} {field} is {{{noun}.{field}}}, limit is {{limit}}')\n"
        f"return {noun}",
    )


def _method(noun: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    if rng.random() < 0.5:
        return (
            f"set_{field}(self, {field})",
            f"Set the {field} of the {noun} and return the old value.",
            f"old = self._{field}\nif {field} != old:\n    self._{field} = {field}\n"
            f"    self._changed('{field}')\nreturn old",
        )
    return (
        f"find_{noun}(self, name)",
        f"Return the {noun} of this name, or raise KeyError.",
        f"for {noun} in self._{noun}s:\n    if {noun}.name == name:\n        return {noun}\nraise KeyError(name)",
    )


_KINDS = (_filtered, _total, _best, _grouped, _checked, _method)


def _generated(rng: random.Random) -> tuple[str, str, str]:
    signature, doc, body = rng.choice(_KINDS)(rng.choice(_NOUNS), rng.choice(_FIELDS), rng)
    return signature, doc, f'def {signature}:\n    """{doc}"""\n{textwrap.indent(body, "    ")}'


_WORDING = (
    "Write a Python function.", "Implement this function in Python.", "Complete the function described below.",
    "Python code, please.", "Please write the code for this.", "You are a programmer. Write the function.",
)  # fmt: skip


def _show(rng: random.Random, signature: str, doc: str) -> str:
    style = rng.randrange(3)
    if style == 0:
        return f"Signature: {signature}\nDocstring: {doc}"
    if style == 1:
        return f"`{signature}` - {doc}"
    return f"def {signature}: ...  # {doc}"


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """A signature and a docstring's first line; the answer is the whole function."""
    del sources
    real = stdlib_functions()
    while True:
        signature, doc, source = rng.choice(real) if real and rng.random() < REAL_SHARE else _generated(rng)
        yield example("python", rng.choice(_WORDING), _show(rng, signature, doc), source, f"{signature}:{doc}")
