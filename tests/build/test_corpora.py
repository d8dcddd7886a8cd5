"""A whole build with n-gram drafters, which begin with what the target answered to their task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_hetero_spec.build.assemble import _drafter
from sglang_hetero_spec.build.assign.assignment import assign
from sglang_hetero_spec.build.recipe import Recipe
from sglang_hetero_spec.pool import load_pool
from tests.build.assign.profiles import record
from tests.build.regenerate.fakes import serving
from tests.build.whole import CONTEXT, SmallVocabulary, Whole, write_log, write_target


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    target = write_target(tmp_path / "target")
    with serving(SmallVocabulary(context=CONTEXT)) as server:
        whole = Whole(target, write_log(tmp_path / "log.jsonl"), tmp_path / "pool", server.url)
        whole.settings = {"ngram": "true"}
        yield whole


def test_they_are_candidates_like_any_other(whole: Whole) -> None:
    ended = whole.run()
    assert ended.code == 0, ended.said
    measured = {json.loads(line)["drafter"] for line in (whole.out / "profile.jsonl").read_text().splitlines()}
    assert measured == {"none", "general", "sum", "greet", "sum-ngram", "greet-ngram"}
    load_pool(whole.out, target=whole.target)
    assert "corpora" in whole.run().done_before


def test_a_chosen_one_comes_into_the_pool_with_its_corpus(whole: Whole) -> None:
    assert whole.run().code == 0
    records = [record("none", "sum", 0), record("sum-ngram", "sum", 4, rate=0.9)]
    (item,) = [found for found in assign(records, concurrency=1).drafters if found.drafter == "sum-ngram"]
    recipe = Recipe(target=str(whole.target), prompts="log.jsonl", ngram=True)
    entry = _drafter(recipe, whole.layout, item, records)
    assert (entry["kind"], entry["path"]) == ("ngram", "drafters/sum-ngram")
    assert (whole.out / entry["path"] / "corpus.safetensors").is_file()
