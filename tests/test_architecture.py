"""Who may import what (DESIGN section 5), read from the source: nothing of the package is imported here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sglang_hetero_spec"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# What never runs in a server: tools of the command line, and the offline stages.
OFFLINE = ("build/", "bench/", "demo/", "serving/", "commands/", "cli.py", "doctor", "router/fit", "router/explain")
KINDS = ("standalone", "none", "lora", "ngram", "sorted", "eagle3")
# frontend.py runs in the user's program.
MAY_IMPORT_SGLANG = (
    "worker/",
    "cpu/",
    "cuda/attn_backend.py",
    "cuda/graphs/",
    "plugin.py",
    "algorithm.py",
    "frontend.py",
)


class Import(NamedTuple):
    file: str  # relative to the package
    module: str  # dotted, absolute
    top_level: bool  # runs when the file is imported

    def of(self, *packages: str) -> bool:
        return any(self.module == package or self.module.startswith(f"{package}.") for package in packages)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in FILES for found in imports_of(path))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of the file but those for type checkers only."""
    name = path.relative_to(PACKAGE).as_posix()
    todo: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), True)]
    while todo:
        node, top_level = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += [(child, top_level) for child in node.orelse]
            continue
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, top_level) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: write imports absolute"
            yield from (Import(name, f"{node.module}.{alias.name}", top_level) for alias in node.names)
        inner = top_level and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        todo += [(child, inner) for child in ast.iter_child_nodes(node)]


def in_server(file: str) -> bool:
    return not file.startswith(OFFLINE)


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import torch.nn
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only_for_types
else:
    import otherwise
try:
    from sglang.srt import x
except ImportError:
    pass
def f():
    import sklearn
class C:
    import in_class
"""
    (tmp_path / "a.py").write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    found = {(item.module, item.top_level) for item in imports_of(tmp_path / "a.py")}
    assert found == {
        ("torch.nn", True),
        ("typing.TYPE_CHECKING", True),
        ("otherwise", True),
        ("sglang.srt.x", True),
        ("sklearn", False),
        ("in_class", True),
    }


def test_pool_needs_neither_torch_nor_sglang() -> None:
    heavy = ("torch", "transformers", "sglang", "sklearn", "rich")
    own = ("worker", "drafters", "algorithm", "plugin", "router", "demo", "build", "bench")
    ours = tuple(f"sglang_hetero_spec.{name}" for name in own)
    assert [item for item in imports() if item.file.startswith("pool/") and item.of(*heavy, *ours)] == []


def test_a_pool_reads_vocabularies_only_where_a_drafter_has_its_own() -> None:
    """pool/ is imported by everything and starts quickly; vocab/ needs the tokenizers library."""
    found = [item for item in imports() if item.file.startswith("pool/") and item.of("sglang_hetero_spec.vocab")]
    assert {(item.file, item.top_level) for item in found} == {("pool/foreign.py", False)}


def test_vocabularies_need_no_engine() -> None:
    own = tuple(f"sglang_hetero_spec.{name}" for name in ("worker", "drafters", "router", "build"))
    found = [item for item in imports() if item.file.startswith("vocab/")]
    assert found, "vocab/ has files"
    assert [item for item in found if item.of("torch", "transformers", "sglang", "sklearn", "rich", *own)] == []


def test_the_router_in_a_server_needs_neither_torch_nor_sklearn_nor_sglang() -> None:
    online = [item for item in imports() if item.file.startswith("router/") and in_server(item.file)]
    assert online, "the router has files"
    assert [item for item in online if item.of("torch", "transformers", "sklearn", "scipy", "sglang")] == []


def test_nothing_in_a_server_imports_sklearn_or_an_offline_part() -> None:
    offline = tuple("sglang_hetero_spec." + name.rstrip("/").removesuffix(".py").replace("/", ".") for name in OFFLINE)
    found = [
        item
        for item in imports()
        if in_server(item.file) and (item.of("sklearn", "scipy", "rich") or item.module.startswith(offline))
    ]
    assert found == []


def test_only_the_worker_side_imports_sglang_when_imported() -> None:
    found = [
        item
        for item in imports()
        if item.top_level and item.of("sglang") and not item.file.startswith(MAY_IMPORT_SGLANG)
    ]
    assert found == []


def test_the_worker_knows_no_kind_and_a_kind_no_other_kind() -> None:
    kinds = tuple(f"sglang_hetero_spec.drafters.{kind}" for kind in KINDS)
    found = [item for item in imports() if item.file.startswith("worker/") and item.of(*kinds)]
    for item in imports():
        folder, _, name = item.file.rpartition("/")
        own = f"sglang_hetero_spec.drafters.{name.removesuffix('.py')}"
        if folder == "drafters" and own in kinds and item.of(*(kind for kind in kinds if kind != own)):
            found.append(item)
    assert found == []


def test_the_command_line_imports_little_when_imported() -> None:
    allowed = {*sys.stdlib_module_names, "sglang_hetero_spec", "__future__"}
    found = [
        item
        for item in imports()
        if item.top_level and item.file.startswith(("cli.py", "commands/")) and item.module.split(".")[0] not in allowed
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "sglang_hetero_spec.plugin",
            ("torch", "transformers", "sklearn", "numpy", "pydantic", "rich", "sglang"),
        ),
        (
            "sglang_hetero_spec.cli",
            ("torch", "transformers", "sklearn", "numpy", "pydantic", "rich", "sglang"),
        ),
        ("sglang_hetero_spec.pool", ("torch", "transformers", "sklearn", "numpy", "rich", "sglang")),
        (
            "sglang_hetero_spec.router.predict",
            ("torch", "transformers", "sklearn", "scipy", "rich", "sglang"),
        ),
    ],
)
def test_imported_alone_nothing_heavy_comes_along(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert child.stdout.strip() == "[]"


def test_files_are_short() -> None:
    assert [path for path in FILES if path.read_bytes().count(b"\n") > MAX_LINES] == []


def test_files_are_ascii() -> None:
    """Texts in other languages are data: they live in demo/data."""
    found = [path.relative_to(PACKAGE).as_posix() for path in FILES if not path.read_bytes().isascii()]
    assert [name for name in found if not name.startswith("demo/data/")] == []
