"""A whole build whose task drafters are adapters of the general one; what `profile` and `assign` make of adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.build.adapters import shared_base
from sglang_hetero_spec.build.align.models import load_model, with_lora
from sglang_hetero_spec.build.align.settings import LoraSettings
from sglang_hetero_spec.build.assemble import _base_of
from sglang_hetero_spec.build.layout import Layout
from sglang_hetero_spec.build.profile.candidates import find_candidates
from sglang_hetero_spec.build.profile.checked import check, write_pool
from sglang_hetero_spec.build.profile.measure import name_entries
from sglang_hetero_spec.build.profile.records import ProfileError, Settings
from sglang_hetero_spec.pool import load_pool, weights_sha256
from tests.build.regenerate.fakes import serving
from tests.build.whole import CONTEXT, SmallVocabulary, Whole, write_log, write_target
from tests.support.adapters import write_adapter
from tests.support.manifest import write_manifest
from tests.support.tiny_models import TinyShape, write_tiny_model

CHAIN = Settings(4, 1, 5)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    target = write_target(tmp_path / "target")
    with serving(SmallVocabulary(context=CONTEXT)) as server:
        whole = Whole(target, write_log(tmp_path / "log.jsonl"), tmp_path / "pool", server.url)
        whole.settings = {"align.lora": "{r: 2}"}
        yield whole


def test_base_first_then_an_adapter_for_each_task(whole: Whole) -> None:
    ended = whole.run()
    assert ended.code == 0, ended.said
    assert whole.aligned == ["base", "sum", "greet"] or whole.aligned == ["base", "greet", "sum"]
    general = whole.layout.drafter("general")
    assert weights_sha256(general) == weights_sha256(whole.layout.base)
    for task in ("sum", "greet"):
        made = json.loads((whole.layout.drafter(task) / "align.json").read_text())
        assert (made["kind"], made["start"]["base"]) == ("lora", str(general))
    measured = {json.loads(line)["drafter"] for line in (whole.out / "profile.jsonl").read_text().splitlines()}
    assert measured == {"none", "general", "sum", "greet"}
    pool = load_pool(whole.out, target=whole.target)
    adapters = [spec for spec in pool.drafters if spec.kind == "lora"]
    for spec in adapters:
        assert spec.base == "general" and spec.path is not None
        assert sorted(path.name for path in spec.path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not adapters or pool.drafter("general").kind == "standalone"
    again = whole.run()
    assert again.code == 0 and {"base", "drafters", "profile", "assign"} <= set(again.done_before)
    assert len(whole.aligned) == 3


def test_an_interrupted_build_goes_on_with_the_adapters(whole: Whole) -> None:
    def stop(name: str) -> None:
        if whole.aligned.count("sum") + whole.aligned.count("greet") == 2:
            raise KeyboardInterrupt

    whole.on_align = stop
    with _interrupted():
        whole.run()
    whole.on_align = lambda name: None
    ended = whole.run()
    assert ended.code == 0 and whole.aligned.count("base") == 1 and "base" in ended.done_before


class _interrupted:
    """The command may answer Ctrl-C with an exit code."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, *_: object) -> bool:
        return kind is None or issubclass(kind, KeyboardInterrupt)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    shape = TinyShape(hidden=32, layers=1, max_len=256)
    write_tiny_model(tmp_path / "target", seed=1, shape=shape)
    base = write_tiny_model(tmp_path / "base", seed=2, shape=shape)
    write_adapter(base, tmp_path / "sql", rank=2)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_an_adapter_is_a_candidate_with_its_base(shop: Path) -> None:
    target = str(shop / "target")
    found = find_candidates([str(shop / "sql")], (CHAIN,))
    good, left_out = check(found, target, shop / "empty")
    assert [one.kind for one in good] == ["lora"] and left_out == []
    pool = write_pool(shop / "empty", name_entries(good), target)
    assert [(spec.name, spec.kind, spec.base) for spec in pool.drafters] == [
        ("none", "none", None), ("1.sql", "lora", "base-of-1.sql"), ("base-of-1.sql", "standalone", None),
    ]  # fmt: skip
    good, _ = check(find_candidates([str(shop / "sql"), str(shop / "base")], (CHAIN,)), target, shop / "empty")
    pool = write_pool(shop / "empty", name_entries(good), target)
    assert [(spec.name, spec.base) for spec in pool.drafters] == [("none", None), ("1.sql", "2.base"), ("2.base", None)]


def test_a_pools_adapters_are_candidates_with_its_shapes(shop: Path) -> None:
    drafters = [
        {"name": "sql", "kind": "lora", "path": str(shop / "sql"), "external": True, "base": "base"},
        {"name": "base", "kind": "standalone", "path": str(shop / "base"), "external": True, "num_steps": 3},
    ]
    found = find_candidates([str(write_manifest(shop / "pool", drafters, fallback="base"))], (CHAIN,))
    assert [(one.drafter, one.settings.num_steps) for one in found] == [("sql", 3), ("base", 3)]
    good, left_out = check(found, str(shop / "target"), shop / "empty")
    assert len(good) == 2 and left_out == []


def test_an_adapter_without_its_base_is_no_candidate(shop: Path) -> None:
    config = shop / "sql" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "a/hub-name"}))
    with pytest.raises(ProfileError, match="is a/hub-name, which is no folder of a checkpoint"):
        find_candidates([str(shop / "sql")], (CHAIN,))


def test_a_base_beside_its_adapter(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shop / "sql" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "../base"}))
    monkeypatch.chdir(shop / "empty" / "..")
    found = find_candidates([str(shop / "sql")], (CHAIN,))
    assert found[0].base is not None and found[0].base.path == shop / "base"
    recipe = SimpleNamespace(drafters={"mine": str(shop / "base")})
    assert _base_of(recipe, Layout(shop / "out"), shop / "sql") == "mine"


def test_an_adapter_names_its_base_by_an_absolute_path(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    model = with_lora(load_model("base", torch.float32, "--base"), LoraSettings(r=2), 0)
    model.save_pretrained(shop / "made")
    config = json.loads((shop / "made" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(shop / "base")


def test_the_base_is_counted_once() -> None:
    memory = {"general": 100, "sql": 10, "math": 10, "given": 50}
    assert shared_base(memory, 130, ["sql", "math"]) == ({**memory, "general": 0}, 30)
    assert shared_base(memory, None, ["sql"]) == (memory, None)
    assert shared_base(memory, 60, []) == (memory, 60)
    too_small, limit = shared_base(memory, 60, ["sql", "math"])
    assert (too_small["sql"], too_small["given"], limit) == (110, 50, 60)
