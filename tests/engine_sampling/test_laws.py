"""The yardstick itself: it takes samples of the right law, and sees small errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.engine_sampling.laws import FEWEST_EXPECTED, Cells, ExactModel, Params, Tokens, against_law, of_two_samples
from tests.engine_sampling.settings import COOL, MIN_P, NUM_TOKENS, PROMPT
from tests.support.tiny_models import write_tiny_model

NUM_SAMPLES = 10_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    return ExactModel(write_tiny_model(tmp_path_factory.mktemp("model"), seed=1, spread=0.35), PROMPT)


def drawn(law: dict[Tokens, float], seed: int) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(list(law.values()), dtype=torch.float64)
    chosen = torch.multinomial(weights, NUM_SAMPLES, replacement=True, generator=generator)
    entries = list(law)
    return [entries[number] for number in chosen.tolist()]


@pytest.mark.parametrize("params", [Params(), COOL, MIN_P])
def test_small_errors_are_seen(params: Params, model: ExactModel) -> None:
    law = model.law(params, NUM_TOKENS)
    wrong = model.law(replace(params, temperature=1.05 * params.temperature), NUM_TOKENS)
    assert sum(law.values()) == pytest.approx(1.0)
    assert against_law(drawn(law, seed=2), law).p > 0.001
    assert against_law(drawn(wrong, seed=3), law).p < 1e-6
    assert of_two_samples(drawn(law, seed=4), drawn(law, seed=5), law).p > 0.001
    assert of_two_samples(drawn(law, seed=6), drawn(wrong, seed=7), law).p < 0.001


def test_one_impossible_answer_is_enough(model: ExactModel) -> None:
    law = model.law(COOL, NUM_TOKENS)
    impossible = next((t, t, t) for t in range(200) if all(entry[0] != t for entry in law))
    assert against_law([*drawn(law, seed=1), impossible], law).p == 0.0


@pytest.mark.parametrize("params", [Params(), COOL, Params(temperature=0.0)])
def test_cells_are_a_partition_of_likely_ones(params: Params, model: ExactModel) -> None:
    law = model.law(params, NUM_TOKENS)
    cells = Cells(law, NUM_SAMPLES)
    assert sum(cells.probabilities.values()) == pytest.approx(1.0)
    assert all(p * NUM_SAMPLES >= FEWEST_EXPECTED for p in cells.probabilities.values())
    assert sum(cells.counts(drawn(law, seed=0))) == NUM_SAMPLES


@pytest.mark.parametrize("params", [Params(), COOL, MIN_P])
@pytest.mark.parametrize("num_samples", [1000, 6667, 20_000])
def test_every_answer_falls_into_the_cell_that_has_its_mass(
    num_samples: int, params: Params, model: ExactModel
) -> None:
    law = model.law(params, NUM_TOKENS)
    cells = Cells(law, num_samples)
    entries = list(law)
    mass = dict.fromkeys(cells.probabilities, 0.0)
    for entry in entries:
        (cell,) = (cell for cell, count in zip(mass, cells.counts([entry]), strict=True) if count)
        mass[cell] += law[entry]
    assert mass == pytest.approx(cells.probabilities)


def test_a_filter_is_what_it_says(model: ExactModel) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    for params, want in (
        (Params(top_k=2, top_p=0.35), [4, 0, 0, 0]),
        (Params(top_k=2, top_p=0.5), [4, 3, 0, 0]),
        (Params(min_p=0.4), [4, 3, 2, 0]),
        (Params(temperature=0.0), [1, 0, 0, 0]),
    ):
        assert params.filtered(logits)[0].tolist() == pytest.approx([w / sum(want) for w in want])
