"""The estimator: finds the tasks of data sets that it was not told of, by itself, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from sglang_hetero_spec.build.partition import Partitioner, PartitionError
from sglang_hetero_spec.demo.data import TASKS, examples, find_sources
from tests.build.partition.data import toy_answers, toy_tasks
from tests.support.data import data_file
from tests.support.spec_bench import spec_bench

LABELS = ("mt_bench", "qa", "rag", "translation")


def demo_prompts(per_task: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Prompts, tasks and answers; the generators use real text where it is there."""
    folder: Path | None = None
    try:
        folder = data_file("gsm8k_train.jsonl").parent
    except pytest.skip.Exception:
        folder = None
    sources = find_sources(folder)[0]
    made = [item for task in TASKS for item in examples(task, per_task, heldout=False, sources=sources, seed=seed)]
    return [item.prompt for item in made], [item.task for item in made], [item.answer for item in made]


def test_spec_bench_with_the_labels_hidden() -> None:
    prompts, tasks = spec_bench()
    found = Partitioner(random_state=0).fit(prompts)
    assert adjusted_rand_score(tasks, found.labels_) >= 0.65
    assert abs(found.n_tasks_ - 6) <= 2


@pytest.mark.parametrize("with_answers", [False, True])
def test_the_demo_tasks(with_answers: bool) -> None:
    prompts, tasks, answers = demo_prompts(100)
    found = Partitioner(random_state=0).fit(prompts, answers if with_answers else None)
    assert adjusted_rand_score(tasks, found.labels_) >= 0.95
    assert abs(found.n_tasks_ - 6) <= 2


def test_parts_of_spec_bench_of_uneven_size() -> None:
    prompts, tasks = spec_bench()
    rng = np.random.default_rng(0)
    share = {task: 0.9 if task == "qa" else 0.4 for task in LABELS}
    rows = [row for row, task in enumerate(tasks) if rng.random() < share.get(task, 0)]
    found = Partitioner().fit([prompts[row] for row in rows])
    assert adjusted_rand_score([tasks[row] for row in rows], found.labels_) >= 0.65
    assert abs(found.n_tasks_ - 4) <= 2


@pytest.mark.parametrize("per_task", [8, 40])
def test_few_prompts_and_more(per_task: int) -> None:
    prompts, tasks = toy_tasks(per_task)
    found = Partitioner().fit(prompts)
    assert adjusted_rand_score(tasks, found.labels_) >= 0.9
    assert found.n_tasks_ == 4 == len(set(found.ids_)) == len(found.terms_)


def test_other_prompts_are_told_apart_alike() -> None:
    prompts, tasks = toy_tasks(40)
    others, of_others = toy_tasks(20, seed=1)
    found = Partitioner().fit(prompts, toy_answers(tasks))
    assert adjusted_rand_score(of_others, found.predict(others, toy_answers(of_others))) >= 0.9
    assert adjusted_rand_score(of_others, found.predict(others)) >= 0.9
    assert (found.predict(prompts, toy_answers(tasks)) == found.labels_).all()


def test_scikit_learns_habits() -> None:
    estimator = Partitioner(3, random_state=7)
    assert clone(estimator).get_params() == estimator.get_params()
    prompts, _ = toy_tasks(10)
    labels = estimator.fit_predict(prompts)
    assert (labels == estimator.labels_).all()
    assert estimator.n_tasks_ == 3 and estimator.scores_ == []
    assert estimator.embedding_.shape[0] == len(prompts)


def test_the_bounds_hold() -> None:
    prompts, _ = toy_tasks(30)
    assert Partitioner(min_tasks=6, max_tasks=8).fit(prompts).n_tasks_ in (6, 7, 8)
    assert Partitioner(max_tasks=2).fit(prompts).n_tasks_ <= 2
    assert Partitioner(1).fit(prompts).n_tasks_ == 1
    assert Partitioner(max_tasks=1).fit(prompts).n_tasks_ == 1


def test_one_task_is_one_task() -> None:
    prompts, tasks = spec_bench()
    for label in ("qa", "rag", "summarization"):
        own = [prompt for prompt, task in zip(prompts, tasks, strict=True) if task == label]
        assert Partitioner().fit(own).n_tasks_ == 1


def test_the_largest_task_comes_first() -> None:
    prompts, tasks = toy_tasks(40)
    kept = [(p, t) for row, (p, t) in enumerate(zip(prompts, tasks, strict=True)) if t == "places" or row % 3 == 0]
    labels = Partitioner().fit([prompt for prompt, _ in kept]).labels_
    sizes = np.bincount(labels[labels >= 0])
    assert (np.diff(sizes) <= 0).all() and sizes[0] == 40


def test_odd_prompts_belong_to_no_task() -> None:
    prompts, tasks = toy_tasks(60)
    odd = ["!!!! ???? ####", "\u4eca\u65e5\u306f\u5929\u6c17\u304c\u3044\u3044", "Ph'nglui mglw'nafh fhtagn wgah"]
    found = Partitioner().fit(prompts + odd)
    assert found.labels_[-3:].tolist() == [-1, -1, -1]
    assert (found.labels_[:-3] >= 0).mean() > 0.98
    assert adjusted_rand_score(tasks, found.labels_[:-3]) >= 0.9


def test_a_long_log_is_fitted_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglang_hetero_spec.build.partition.estimator._SAMPLE", 100)
    prompts, tasks = toy_tasks(100)
    found = Partitioner().fit(prompts, toy_answers(tasks))
    assert len(found.labels_) == len(found.embedding_) == 400
    assert adjusted_rand_score(tasks, found.labels_) >= 0.9


def test_an_unknown_answer_does_no_harm() -> None:
    prompts, tasks = toy_tasks(40)
    answers: list[str | None] = [None if row % 12 == 0 else text for row, text in enumerate(toy_answers(tasks))]
    assert adjusted_rand_score(tasks, Partitioner().fit(prompts, answers).labels_) >= 0.9


@pytest.mark.parametrize(
    "prompts",
    [
        [f"What is {a} + {b}?" for a in range(10, 20) for b in range(10, 14)],  # alike once numbers are folded
        [f"word{chr(97 + a)}{chr(97 + b)}" for a in range(6) for b in range(6)],  # no word twice
        ["?" * n for n in range(1, 30)],  # no word at all
        ["".join(chr(0x4E00 + 37 * n + k) for k in range(9)) for n in range(30)],
        ["x" * 200_000 + f" {n} end{n}" for n in range(15)],
        [f"{n}\n" * n for n in range(1, 31)],
    ],
)
def test_strange_logs_are_partitioned_all_the_same(prompts: list[str]) -> None:
    found = Partitioner().fit(prompts)
    assert len(found.labels_) == len(prompts)
    assert found.n_tasks_ == len(found.ids_) >= 1
    assert set(found.labels_.tolist()) - {-1} == set(range(found.n_tasks_))


@pytest.mark.parametrize(
    ("estimator", "prompts", "sentence"),
    [
        (Partitioner(), ["a", "b", "c"], "3 different prompts are too few"),
        (Partitioner(), [], "0 different prompts are too few"),
        (Partitioner(), ["same"] * 50, "all prompts are the same"),
        (Partitioner(40), toy_tasks(10)[0], "40 tasks cannot be made of 40 prompts; ask for 1 to 20."),
        (Partitioner(0), toy_tasks(10)[0], "0 tasks cannot be made"),
        (Partitioner(min_tasks=5, max_tasks=4), toy_tasks(10)[0], "the bounds 5 to 4 hold no number"),
        (
            Partitioner(min_tasks=9),
            toy_tasks(10)[0],
            "at least 9 tasks were asked for, and 40 prompts are enough for 8",
        ),
        (Partitioner(embedder="/nowhere"), toy_tasks(10)[0], "--embedder /nowhere is not a folder"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(estimator: Partitioner, prompts: list[str], sentence: str) -> None:
    with pytest.raises(PartitionError) as refused:
        estimator.fit(prompts)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(PartitionError, match="give one for each"):
        Partitioner().fit(["a"] * 20, ["b"])


class _Model:
    """In the place of a sentence-transformers model: counts a few words."""

    def __init__(self, path: str, local_files_only: bool) -> None:
        assert local_files_only

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        known = ("python", "code", "how", "many", "french", "write", "letter", "note", "email", "thank")
        return np.array([[text.lower().count(word) for word in known] + [len(text) / 100] for text in texts])


def test_a_sentence_transformers_model_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    prompts, tasks = toy_tasks(30)
    with pytest.raises(PartitionError, match="pip install"):
        Partitioner(embedder=tmp_path).fit(prompts)
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=_Model))
    found = Partitioner(4, embedder=tmp_path).fit(prompts, toy_answers(tasks))
    assert adjusted_rand_score(tasks, found.labels_) >= 0.8
    assert len(found.predict(prompts)) == len(prompts)
    assert Partitioner(embedder=tmp_path).fit(prompts).n_tasks_ >= 1
