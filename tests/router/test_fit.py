from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from sglang_hetero_spec.router import fit_calibrate
from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.features import FeatureHasher
from sglang_hetero_spec.router.fit import FittedRouter, fit_router
from sglang_hetero_spec.router.fit_linear import deal_folds, feature_matrix, fit_linear_model, router_weights
from sglang_hetero_spec.router.fit_wrappings import WRAPPINGS
from sglang_hetero_spec.router.predict import LinearRouter
from sglang_hetero_spec.router.schema import Calibration, FeatureSpec, RouterConfig, Thresholds
from sglang_hetero_spec.router.store import save_router_files
from tests.router.toy import toy_prompt, toy_prompts
from tests.support.spec_bench import spec_bench


@pytest.mark.parametrize("tasks", [("code", "sums"), ("code", "letters", "sums")])
def test_saved_and_loaded_it_says_what_scikit_learn_says(tasks: tuple[str, ...], tmp_path: Path) -> None:
    spec = FeatureSpec(bucket_bits=10)
    hasher = FeatureHasher(spec)
    prompts = [toy_prompt(task, number) for number in range(30) for task in tasks]
    labels = np.arange(len(prompts)) % len(tasks)
    model = LogisticRegression(fit_intercept=False).fit(feature_matrix(hasher, prompts), labels)
    config = RouterConfig(
        classes=tasks,
        features=spec,
        calibration=Calibration(temperature=1.0),
        thresholds=Thresholds(min_confidence=0.0),
        weights_sha256="0" * 64,
    )
    save_router_files(tmp_path, config, router_weights(model))
    router = LinearRouter.load(tmp_path)
    texts = [*prompts[:9], "", "Something else", "def f(): pass " * 500, "\ud800 \u65e5\u672c"]
    expected = model.predict_proba(feature_matrix(hasher, texts))
    assert np.ptp(expected[:, 0]) > 0.3, "the comparison is of numbers that differ"
    for text, row in zip(texts, expected, strict=True):
        prediction = router.predict(text)
        assert np.abs(prediction.probabilities - row).max() < 1e-5
        assert prediction.task == tasks[row.argmax()]
        assert prediction.confidence == prediction.probabilities.max()


def test_the_temperature_divides_the_scores(fitted: FittedRouter, router_dir: Path) -> None:
    path = router_dir / "router.json"
    config = json.loads(path.read_text())
    text = "How many items are in the list of Mrs. Miller?"
    logits = np.log(LinearRouter.load(router_dir).predict(text).probabilities)
    config["calibration"]["temperature"] *= 3
    path.write_text(json.dumps(config))
    assert LinearRouter.load(router_dir).predict(text).probabilities == pytest.approx(softmax(logits / 3), abs=1e-6)


def test_new_prompts_find_their_task(fitted: FittedRouter) -> None:
    for prompt, task in zip(*toy_prompts(range(1000, 1020)), strict=True):
        prediction = fitted.router.predict(prompt)
        assert prediction.task == task
        assert prediction.confidence > 0.9


def test_in_a_chat_template_they_find_it_too(fitted: FittedRouter) -> None:
    for before, after in WRAPPINGS:
        for prompt, task in zip(*toy_prompts(range(1000, 1003)), strict=True):
            assert fitted.router.predict(before + prompt + after).task == task


@pytest.mark.parametrize("text", ["", "hjkl zxcvb qwrtp", "\u65e5\u672c\u8a9e \u306e \u6587", "%%% ### @@@"])
def test_what_is_like_no_task_is_not_routed_with_confidence(fitted: FittedRouter, text: str) -> None:
    assert fitted.router.predict(text).confidence < 0.7


def test_the_model_that_is_saved_without_intercepts_has_none() -> None:
    prompts, _ = toy_prompts(range(12))
    labels = np.array([0, 1, 1] * 12)
    model = fit_linear_model(feature_matrix(FeatureHasher(FeatureSpec()), prompts), labels, np.ones(36))
    assert model.intercept_.tolist() == [0]


def test_the_same_input_gives_the_same_router(fitted: FittedRouter) -> None:
    again = fit_router(*toy_prompts(range(40)))
    assert again.router.config == fitted.router.config
    assert np.array_equal(again.router.weights.coefficients, fitted.router.weights.coefficients)


def test_the_figures_are_of_prompts_not_fitted_on() -> None:
    """Labels drawn at random can be learned by heart; out of fold they cannot be known."""
    generator = np.random.default_rng(0)
    prompts = [random_words(generator) for _ in range(200)]
    labels = generator.choice(["a", "b"], 200)
    fitted = fit_router(prompts, labels.tolist())
    by_heart = np.mean([fitted.router.predict(p).task == label for p, label in zip(prompts, labels, strict=True)])
    assert by_heart > fitted.cross_validated_accuracy + 0.1
    assert fitted.cross_validated_accuracy < 0.65
    mean = np.mean([fitted.router.predict(random_words(generator)).confidence for _ in range(100)])
    assert mean < 0.75, "calibration knows that it does not know"


def random_words(generator: np.random.Generator) -> str:
    return " ".join("".join(generator.choice(list("abcdefghijklmnop"), 6)) for _ in range(5))


def test_the_confusion_counts_every_prompt_once() -> None:
    prompts, tasks = toy_prompts(range(10))
    tasks[0], tasks[1] = tasks[1], tasks[0]  # wrong labels cannot be predicted
    fitted = fit_router(prompts, tasks)
    counts = fitted.confusion
    assert sum(n for row in counts.values() for n in row.values()) == len(prompts) == fitted.num_prompts
    right = sum(counts[task].get(task, 0) for task in counts)
    assert right / len(prompts) == fitted.cross_validated_accuracy < 1


def test_two_tasks_with_few_prompts() -> None:
    fitted = fit_router(
        *map(list, zip(*[(toy_prompt(t, n), t) for t in ("code", "sums") for n in range(3)], strict=True))
    )
    assert fitted.num_folds == 3
    assert fitted.router.predict(toy_prompt("code", 77)).task == "code"
    assert fitted.router.predict(toy_prompt("sums", 77)).task == "sums"
    assert fitted.router.predict(toy_prompt("sums", 77)).confidence < 0.95, "six prompts are little evidence"


def test_a_task_of_few_prompts_among_many_is_found() -> None:
    """Unweighted, about half of these go to the big task."""
    generator = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]

    def prompts(last: str, count: int) -> list[str]:
        return [" ".join([*generator.permutation(words)[:6], last]) for _ in range(count)]

    fitted = fit_router(prompts("apple", 300) + prompts("pear", 4), ["many"] * 300 + ["few"] * 4)
    found = [fitted.router.predict(prompt).task for prompt in prompts("pear", 50)]
    assert found.count("few") >= 45


@pytest.mark.parametrize(
    ("prompts", "tasks", "words"),
    [
        ([], [], "two tasks"),
        (["a", "b"], ["x", "x"], "two tasks"),
        (["a", "b", "c"], ["x", "x", "y"], "`y` has one prompt"),
        (["a"], [], "1 prompts came with 0 tasks"),
        (["a", b"b"], ["x", "y"], "prompt 1 is bytes"),
        (["a", "b"], ["x", "no spaces"], "prompt 1 is not an id"),
        (["a", "b"], ["x", None], "prompt 1 is not an id"),
        ([str(i) for i in range(600)], [f"t{i // 2}" for i in range(600)], "300 tasks are too many"),
    ],
)
def test_prompts_that_cannot_teach_a_router(prompts: list, tasks: list, words: str) -> None:
    with pytest.raises(RouterError, match=words):
        fit_router(prompts, tasks)


def test_files_stay_below_two_megabytes_with_many_tasks(tmp_path: Path) -> None:
    tasks = [f"t{index % 40}" for index in range(80)]
    fit_router([f"{task} {i}" for i, task in enumerate(tasks)], tasks).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000
    assert len(LinearRouter.load(tmp_path).classes) == 40


def test_folds_are_even_and_no_training_part_lacks_a_task() -> None:
    labels = np.array([0] * 23 + [1] * 2 + [2] * 11)
    folds = deal_folds(labels, 5, random_state=3)
    sizes = np.bincount(folds)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 1
    for fold in range(5):
        assert set(labels[folds != fold]) == {0, 1, 2}
    assert (deal_folds(labels, 5, random_state=4) != folds).any()


def test_the_temperature_is_the_one_that_scores_were_heated_by() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(20_000, 4)) * 3
    labels = np.array([generator.choice(4, p=row) for row in softmax(scores, axis=1)])
    assert fit_calibrate.fit_temperature(scores * 5, labels) == pytest.approx(5, rel=0.03)
    calibrated, heated = softmax(scores, axis=1), softmax(scores * 5, axis=1)
    assert fit_calibrate.expected_calibration_error(calibrated, labels) < 0.015
    assert fit_calibrate.expected_calibration_error(heated, labels) > 0.1


def test_scores_without_error_do_not_make_certainty() -> None:
    scores = np.eye(2)[np.arange(6) % 2] * 10
    labels = np.arange(6) % 2
    hottest = softmax(scores / fit_calibrate.fit_temperature(scores, labels), axis=1).max()
    assert hottest == pytest.approx(4 / 5, abs=1e-3)  # three right of three, as Platt smooths them


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 0, 1, 1, 0])
    assert fit_calibrate.expected_calibration_error(probabilities, labels) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_spec_bench_in_five_folds() -> None:
    fitted = fit_router(*spec_bench())
    assert fitted.num_prompts == 480
    assert fitted.num_folds == 5
    assert fitted.cross_validated_accuracy >= 0.93
    assert fitted.wrapped_accuracy >= 0.92
    assert fitted.ece <= 0.05
