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
REAL_SHARE = 0.1

# Signature, first line of the docstring, and the body (generated) or the whole source (the standard library's).
Function = tuple[str, str, str]


@lru_cache(maxsize=1)
def stdlib_functions() -> tuple[Function, ...]:
    """(signature, first line of the docstring, source) of short documented functions of this interpreter."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Function] = {}
    for path in sorted(root.rglob("*.py")):
        if not _SKIP & set(path.relative_to(root).parts):
            for item in _functions(path):
                found.setdefault(item[2], item)
    return tuple(found.values())


def _functions(path: Path) -> Iterator[Function]:
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


def _function(node: ast.FunctionDef) -> Function | None:
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


_NOUNS = (
    "user", "order", "file", "book", "player", "item", "node", "record", "task", "message", "event", "product",
    "student", "account", "ticket", "image", "page", "token", "point", "server", "worker", "channel", "recipe",
    "vehicle",
)  # fmt: skip
_FIELDS = (
    "size", "price", "age", "score", "weight", "length", "rank", "count", "level", "width", "duration",
    "priority", "cost", "depth", "speed", "year",
)  # fmt: skip
_COMPARE = (("greater than", ">"), ("less than", "<"), ("at least", ">="), ("at most", "<="), ("equal to", "=="))


def _filtered(noun: str, field: str, rng: random.Random) -> Function:
    words, op = rng.choice(_COMPARE)
    limit = rng.choice(("limit", "threshold", "bound", "value"))
    return (
        f"select_{noun}s({noun}s, {limit})",
        f"Return the {noun}s whose {field} is {words} {limit}.",
        f"result = []\nfor {noun} in {noun}s:\n    if {noun}.{field} {op} {limit}:\n"
        f"        result.append({noun})\nreturn result",
    )


def _total(noun: str, field: str, rng: random.Random) -> Function:
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


def _best(noun: str, field: str, rng: random.Random) -> Function:
    word, op = rng.choice((("largest", ">"), ("smallest", "<")))
    return (
        f"{word}_{noun}({noun}s)",
        f"Return the {noun} with the {word} {field}, or None.",
        f"best = None\nfor {noun} in {noun}s:\n    if best is None or {noun}.{field} {op} best.{field}:\n"
        f"        best = {noun}\nreturn best",
    )


def _grouped(noun: str, field: str, rng: random.Random) -> Function:
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


def _checked(noun: str, field: str, rng: random.Random) -> Function:
    words, op = rng.choice(_COMPARE[:2])
    return (
        f"check_{field}({noun}, limit=100)",
        f"Raise ValueError if the {field} of the {noun} is {words} limit.",
        f"if {noun}.{field} {op} limit:\n"
        f"    raise ValueError(f'{noun} {field} is {{{noun}.{field}}}, limit is {{limit}}')\n"
        f"return {noun}",
    )


def _method(noun: str, field: str, rng: random.Random) -> Function:
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


def _sorted(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"top_{noun}s({noun}s, count=10)",
            f"Return the {noun}s with the highest {field}, best first.",
            f"ranked = sorted({noun}s, key=lambda {noun}: {noun}.{field}, reverse=True)\nreturn ranked[:count]",
        )
    return (
        f"median_{field}({noun}s)",
        f"Return the median {field} of the {noun}s.",
        f"values = sorted({noun}.{field} for {noun} in {noun}s)\nmiddle = len(values) // 2\n"
        "if len(values) % 2:\n    return values[middle]\nreturn (values[middle - 1] + values[middle]) / 2",
    )


def _file(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"load_{noun}s(path)",
            f"Read {noun}s from a JSON file, one per line.",
            f"{noun}s = []\nwith open(path, encoding='utf-8') as file:\n    for line in file:\n"
            f"        if line.strip():\n            {noun}s.append(json.loads(line))\nreturn {noun}s",
        )
    return (
        f"save_{noun}s({noun}s, path)",
        f"Write the {noun}s to a CSV file with a column for the {field}.",
        "with open(path, 'w', newline='') as file:\n    writer = csv.writer(file)\n"
        f"    writer.writerow(['name', '{field}'])\n    for {noun} in {noun}s:\n"
        f"        writer.writerow([{noun}.name, {noun}.{field}])",
    )


def _network(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"fetch_{noun}(session, {noun}_id, retries=3)",
            f"Get one {noun} over HTTP, with retries.",
            "for attempt in range(retries):\n    try:\n"
            f"        response = session.get(f'/{noun}s/{{{noun}_id}}', timeout=10)\n"
            "        response.raise_for_status()\n        return response.json()\n"
            "    except ConnectionError:\n        time.sleep(2 ** attempt)\n"
            f"raise TimeoutError(f'no answer for {noun} {{{noun}_id}}')",
        )
    return (
        f"serve_{noun}(request)",
        f"Answer a request for the {field} of a {noun}.",
        f"{noun}_id = int(request.args.get('id', 0))\n{noun} = database.get({noun}_id)\n"
        f"if {noun} is None:\n    return jsonify(error='no such {noun}'), 404\n"
        f"return jsonify(id={noun}_id, {field}={noun}.{field})",
    )


def _cached(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"get_{noun}(self, key)",
            f"Return the {noun} from the cache, or load it and remember it.",
            f"with self._lock:\n    if key in self._cache:\n        return self._cache[key]\n"
            f"{noun} = self._load_{noun}(key)\nwith self._lock:\n    self._cache[key] = {noun}\nreturn {noun}",
        )
    return (
        f"forget_{noun}s(self, max_age)",
        f"Drop {noun}s from the cache that are older than max_age seconds.",
        "now = time.monotonic()\nold = [key for key, entry in self._cache.items() if now - entry.created > max_age]\n"
        "for key in old:\n    del self._cache[key]\nreturn len(old)",
    )


def _tree(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"walk_{noun}s(root)",
            f"Yield every {noun} below root, depth first.",
            f"stack = [root]\nwhile stack:\n    {noun} = stack.pop()\n    yield {noun}\n"
            f"    stack.extend(reversed({noun}.children))",
        )
    return (
        f"sum_{field}(root)",
        f"Return the {field} of the {noun} and of everything below it.",
        f"if root is None:\n    return 0\nreturn root.{field} + sum(sum_{field}(child) for child in root.children)",
    )


def _special_method(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            "__eq__(self, other)",
            f"Whether two {noun}s have the same name and {field}.",
            f"if not isinstance(other, {noun.title()}):\n    return NotImplemented\n"
            f"return self.name == other.name and self.{field} == other.{field}",
        )
    return (
        "__repr__(self)",
        f"Show the name and the {field} of the {noun}.",
        f"return f'{noun.title()}(name={{self.name!r}}, {field}={{self.{field}!r}})'",
    )


def _tested(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"test_{noun}_{field}(client)",
            f"A new {noun} keeps its {field}.",
            f"{noun} = client.create_{noun}(name='first', {field}=7)\nfound = client.get_{noun}({noun}.id)\n"
            f"assert found.name == 'first'\nassert found.{field} == 7",
        )
    return (
        f"test_{noun}_refuses_{field}()",
        f"A negative {field} is an error.",
        f"with pytest.raises(ValueError) as error:\n    {noun.title()}(name='first', {field}=-1)\n"
        f"assert '{field}' in str(error.value)",
    )


def _numeric(noun: str, field: str, rng: random.Random) -> Function:
    if rng.random() < 0.5:
        return (
            f"normalise_{field}({noun}s)",
            f"Scale the {field} of all {noun}s to lie between 0 and 1.",
            f"values = np.array([{noun}.{field} for {noun} in {noun}s], dtype=float)\n"
            "low, high = values.min(), values.max()\nif high == low:\n    return np.zeros_like(values)\n"
            "return (values - low) / (high - low)",
        )
    return (
        f"moving_{field}({noun}s, window=5)",
        f"Return the moving average of the {field} over the {noun}s.",
        f"averages, recent = [], deque(maxlen=window)\nfor {noun} in {noun}s:\n"
        f"    recent.append({noun}.{field})\n    averages.append(sum(recent) / len(recent))\nreturn averages",
    )


_KINDS = (
    _filtered, _total, _best, _grouped, _checked, _method, _sorted, _file, _network, _cached, _tree, _special_method,
    _tested, _numeric,
)  # fmt: skip


def _generated(rng: random.Random) -> Function:
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
