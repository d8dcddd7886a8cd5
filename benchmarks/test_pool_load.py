"""Reading a pool's manifest with every check that comes before a model loads; start-up, and `hetero-spec inspect`."""

from __future__ import annotations

from pathlib import Path

import pytest

import sglang_hetero_spec
from sglang_hetero_spec.pool import load_pool
from tests.pool.fake_pool import FakePool

ASSETS = Path(sglang_hetero_spec.__file__).parent / "demo" / "assets"


@pytest.mark.parametrize("num_drafters", [2, 50])
def test_load_pool(benchmark, tmp_path: Path, num_drafters: int) -> None:  # type: ignore[no-untyped-def]
    """A manifest of so many drafters without hashes: schema, paths, headers, tokenizers."""
    fake = FakePool(tmp_path)
    general = fake.drafters[1]
    more = [{**general, "name": f"general-{number}"} for number in range(num_drafters - 2)]
    fake.drafters.extend(more)
    fake.write()
    benchmark.group = "load_pool"
    benchmark(load_pool, fake.root, target=fake.target)


def test_load_demo_pool(benchmark) -> None:  # type: ignore[no-untyped-def]
    """The pool that ships with the package, its hashes checked."""
    benchmark.group = "load_pool"
    benchmark(load_pool, ASSETS / "pool", target=ASSETS / "target")
