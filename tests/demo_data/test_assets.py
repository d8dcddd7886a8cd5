"""What ships with the package: small, complete, loadable, and what the manifest says it is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sglang_hetero_spec.demo as demo
from sglang_hetero_spec.demo.data import TASKS
from sglang_hetero_spec.demo.shipped import export, find_shipped
from sglang_hetero_spec.demo.train.export import load_model
from sglang_hetero_spec.demo.why import reasons
from sglang_hetero_spec.pool import load_pool
from sglang_hetero_spec.pool.vocabulary import tokenizer_sha256

ASSETS = Path(demo.__file__).parent / "assets"
POOL, SMALL = ASSETS / "pool", ASSETS / "small"
MODELS = [ASSETS / "target", *(POOL / "drafters" / name for name in (*TASKS, "general"))]
TWO = [SMALL / "target", POOL / "drafters" / "both"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_under_forty_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 40_000_000


def test_manifest_hashes_and_tasks() -> None:
    manifest = json.loads((POOL / "pool.json").read_text(encoding="utf-8"))
    assert manifest["format"] == "sglang_hetero_spec.pool" and manifest["fallback_drafter"] == "general"
    drafters = {d["name"]: d for d in manifest["drafters"]}
    kinds = {name: "standalone" for name in (*TASKS, "general")} | {f"{task}-lora": "lora" for task in TASKS}
    kinds |= {"sorted": "sorted", "both": "sorted", "copies": "ngram", "none": "none"}
    assert {name: drafter["kind"] for name, drafter in drafters.items()} == kinds
    for drafter in drafters.values():
        if "path" not in drafter:
            continue
        path = POOL / drafter["path"]
        (weights,) = path.glob("*.safetensors")
        assert drafter["weights_sha256"] == _sha256(weights)
        if drafter["kind"] != "lora":
            assert drafter["tokenizer_sha256"] == tokenizer_sha256(path) == manifest["target"]["tokenizer_sha256"]
    assert manifest["target"]["tokenizer_sha256"] == tokenizer_sha256(ASSETS / "target")
    assert {t["id"]: t["drafter"] for t in manifest["tasks"]} == {task: task for task in TASKS}


def test_drafters_are_of_one_size() -> None:
    sizes = {path.name: (path / "model.safetensors").stat().st_size for path in MODELS[1:]}
    assert len(set(sizes.values())) == 1, sizes


def test_one_checkpoint_stands_in_the_pools_of_two_targets() -> None:
    """One folder on disk; each pool says when to leave it for its own target."""
    first, second = load_pool(POOL, target=ASSETS / "target"), load_pool(SMALL / "pool", target=SMALL / "target")
    one, other = first.drafter("both"), second.drafter("both")
    assert one.path == other.path and one.path.is_relative_to(POOL) and other.external and not one.external
    assert one.weights_sha256 == other.weights_sha256 is not None
    assert len(one.exits) == len(other.exits) > 1 and second.fallback_drafter == "both"
    assert not list((SMALL / "pool").rglob("*.safetensors"))
    layers = [
        json.loads((path / "config.json").read_text())["num_hidden_layers"] for path in (ASSETS / "target", TWO[0])
    ]
    assert layers[0] > layers[1]
    assert tokenizer_sha256(ASSETS / "target") == tokenizer_sha256(TWO[0])


def test_both_pools_serve_from_where_they_are_exported_to(tmp_path: Path) -> None:
    made = export(find_shipped(), tmp_path / "out")
    for pool, target in ((made.pool, made.target), (made.small_pool, made.small_target)):
        drafters = load_pool(pool, target=target).drafters
        paths = [drafter.path for drafter in drafters if drafter.path is not None]
        assert paths and all(path.is_relative_to(tmp_path) for path in paths)


@pytest.mark.parametrize("path", [*MODELS, *TWO], ids=lambda p: f"{p.parent.name}-{p.name}")
def test_loadable_by_transformers(path: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = "Write a SQL query.\nzwölf Äpfel für 12 £\n\n"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids[0, 0] == tokenizer.bos_token_id and tokenizer.decode(ids[0, 1:]) == text
    with torch.inference_mode():
        assert bool(theirs(ids).logits.isfinite().all())


def test_the_target_is_the_model_that_was_trained() -> None:
    """Our trainer's forward and transformers' are one function."""
    theirs = AutoModelForCausalLM.from_pretrained(ASSETS / "target", dtype=torch.float32).eval()
    ids = torch.arange(1, 40).unsqueeze(0)
    with torch.inference_mode():
        ours = load_model(ASSETS / "target")
        assert (theirs(ids).logits - ours.logits(ours.hidden(ids))).abs().max() < 1e-3


def test_adapters_load_with_peft() -> None:
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(POOL / "drafters" / "general", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(POOL / "drafters" / "sql-lora")).eval()
    with torch.inference_mode():
        assert bool(adapted(torch.arange(1, 9).unsqueeze(0)).logits.isfinite().all())


def test_every_kind_was_measured_on_every_task() -> None:
    pool = load_pool(POOL, target=ASSETS / "target")
    for reason in reasons(pool):
        assert set(reason.of_kind) == {"standalone", "lora", "sorted", "ngram", "none"}
        best = max(reason.of_kind.values(), key=lambda figure: figure.tokens_per_second)
        assert reason.drafter == best.drafter, reason.task


def test_heldout_prompts() -> None:
    rows = [json.loads(line) for line in (ASSETS / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = Counter(row["task"] for row in rows)
    assert set(counts) == set(TASKS) and min(counts.values()) >= 40
    assert len({row["prompt"] for row in rows}) == len(rows)


def test_task_drafters_beat_the_general_one_as_recorded() -> None:
    """Held-out accept rates, as measured when the pool was made."""
    table = json.loads((ASSETS / "made.json").read_text(encoding="utf-8"))["heldout"]
    gains = {t: row["task"]["accept_rate"] / row["general"]["accept_rate"] - 1 for t, row in table.items()}
    assert min(gains.values()) >= 0.06 and max(gains.values()) >= 0.30, gains
