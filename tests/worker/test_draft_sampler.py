"""Drafts are drawn from the law that the sampler says, and are then accepted as often as theory says."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from tests.worker.enumeration import GREEDY, Case, Params, sampler_law, sampling_info
from tests.worker.test_sampling_exact import PARAMS, one_rank

if TYPE_CHECKING:
    from sglang_hetero_spec.worker.draft_sampling import DraftSampler

__all__ = ["one_rank"]

pytestmark = pytest.mark.usefixtures("one_rank")

V = 6
NUM_COINS = 2000


@pytest.fixture(autouse=True)
def one_rank_draws(one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import draft_sampling

    alone = SimpleNamespace(tp_group=SimpleNamespace(world_size=1))
    monkeypatch.setattr(draft_sampling, "get_parallel", lambda: alone)


def sampler(
    params: list[Params], coins: torch.Tensor | None = None, num_steps: int = 1, **info: object
) -> DraftSampler:
    """As the worker makes it for a batch of requests with these parameters, with coins of ours."""
    from sglang_hetero_spec.worker.draft_sampling import draft_sampler

    sampling = sampling_info(params)
    vars(sampling).update(info)
    lens = info.get("seq_lens", torch.arange(len(params)) + 7)
    made = draft_sampler(SimpleNamespace(sampling_info=sampling, seq_lens=lens), num_steps)
    assert made is not None
    return made if coins is None else replace(made, coins=coins)


def even_coins(count: int) -> torch.Tensor:
    """[count, 1], as if all coins fell once."""
    return ((torch.arange(count) + 0.5) / count).unsqueeze(1)


def random_logits(rng: random.Random, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))) * 1.5


def shares(drawn: torch.Tensor, size: int) -> list[float]:
    return (torch.bincount(drawn, minlength=size) / len(drawn)).tolist()


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
def test_draws_have_the_law_of_the_targets_own_sampler(params: Params) -> None:
    """With the request's temperature and filters; beside a request without any."""
    logits = random_logits(random.Random(f"{params}"), 1, V)
    both = sampler([params] * NUM_COINS + [Params()], torch.cat((even_coins(NUM_COINS), torch.tensor([[0.5]]))))
    drawn, law = both.draw(logits.expand(NUM_COINS + 1, V), 0)
    any_filter = params != Params(params.temperature)
    want = sampler_law(Case([-1], [0], logits, params), any_filter)[0]
    assert law[0].tolist() == pytest.approx(want.tolist(), abs=1e-6)
    assert law[-1].tolist() == pytest.approx(logits[0].softmax(-1).tolist(), abs=1e-6)
    assert shares(drawn[:-1], V) == pytest.approx(want.tolist(), abs=2 / NUM_COINS)
    if params == GREEDY:
        assert set(drawn[:-1].tolist()) == {int(logits.argmax())}


def test_each_step_has_its_own_coins() -> None:
    coins = torch.tensor([[0.01, 0.99, 0.5]])
    logits = torch.zeros(1, 4)
    assert [int(sampler([Params()], coins).draw(logits, step)[0]) for step in range(3)] == [0, 3, 2]


def test_draws_from_a_law_with_mass_missing() -> None:
    """Column m stands for what is missing; the law is what it is, filters do not count."""
    law = torch.tensor([[0.2, 0.0, 0.3, 0.1]])
    draws = sampler([Params(0.5, top_p=0.3)] * NUM_COINS, even_coins(NUM_COINS))
    drawn, used = draws.draw_from(law.expand(NUM_COINS, -1), 0)
    assert torch.equal(used[0], law[0])
    assert shares(drawn, 5) == pytest.approx([0.2, 0.0, 0.3, 0.1, 0.4], abs=2 / NUM_COINS)


@pytest.mark.parametrize("total", [1.0, 1.0 + 1e-7, 0.0])
def test_draws_from_a_law_with_nothing_missing_or_everything(total: float) -> None:
    law = torch.tensor([0.25, 0.5, 0.25]) * total
    drawn, _ = sampler([Params()] * NUM_COINS, even_coins(NUM_COINS)).draw_from(law.expand(NUM_COINS, -1), 0)
    assert set(drawn.tolist()) == ({0, 1, 2} if total else {3})


def test_a_greedy_request_proposes_its_likeliest_token_for_certain() -> None:
    laws = torch.tensor([[0.1, 0.2, 0.05], [0.1, 0.2, 0.05]])
    drawn, used = sampler([GREEDY, Params()], torch.full((2, 1), 0.9)).draw_from(laws, 0)
    assert drawn.tolist() == [1, 3]
    assert torch.equal(used, torch.stack((torch.tensor([0.0, 1.0, 0.0]), laws[1])))


def test_nobody_draws_for_a_batch_of_greedy_requests() -> None:
    from sglang_hetero_spec.worker.draft_sampling import draft_sampler

    batch = SimpleNamespace(sampling_info=sampling_info([GREEDY] * 2), seq_lens=torch.tensor([3, 4]))
    assert draft_sampler(batch, 3) is None


def test_a_part_of_the_batch_draws_as_in_the_whole() -> None:
    rng = random.Random(3)
    params = [rng.choice(list(PARAMS.values())) for _ in range(12)]
    logits, laws = random_logits(rng, 12, V), random_logits(rng, 12, V).softmax(-1) * 0.8
    whole = sampler(params, num_steps=3)
    numbers = [1, 2, 5, 10]
    part = whole.select(numbers)
    for step in range(3):
        for of_whole, of_part in (
            (whole.draw(logits, step), part.draw(logits[numbers], step)),
            (whole.draw_from(laws, step), part.draw_from(laws[numbers], step)),
        ):
            assert torch.equal(of_whole[0][numbers], of_part[0])
            assert torch.allclose(of_whole[1][numbers], of_part[1])
    assert torch.equal(part.temperatures, whole.temperatures[numbers])


def test_seeded_coins_are_the_same_in_any_batch() -> None:
    """A request's coins hang on its seed, its length and the step; never on who else is there."""
    seeds, lens = torch.arange(12) * 977, torch.arange(12) % 5 + 3

    def coins(order: list[int], num_steps: int, shift: int = 0, longer: int = 0) -> torch.Tensor:
        return sampler(
            [Params()] * len(order),
            num_steps=num_steps,
            sampling_seed=seeds[order] + shift,
            seq_lens=lens[order] + longer,
        ).coins

    everyone = coins(list(range(12)), 4)
    assert torch.equal(coins([7, 2], 4), everyone[[7, 2]])
    assert torch.equal(coins([7, 2], 2), everyone[[7, 2]][:, :2])
    assert everyone.dtype == torch.float32 and everyone.min() >= 0 and everyone.max() < 1
    for other in (coins(list(range(12)), 4, shift=1), coins(list(range(12)), 4, longer=5)):
        assert not torch.isin(other, everyone).any()
    assert everyone.unique().numel() == everyone.numel()


def test_seeded_coins_are_not_those_of_verification() -> None:
    """A draft that was drawn with a coin and judged with the same one would follow another law."""
    from sglang.srt.speculative.eagle_utils import _verify_coins

    seeds, lens = torch.arange(300), torch.arange(300) + 5
    drafting = sampler([Params()] * 300, num_steps=64, sampling_seed=seeds, seq_lens=lens).coins
    nodes, final = _verify_coins(
        sampling_info=SimpleNamespace(sampling_seed=seeds),
        seq_lens=lens,
        draft_token_num=128,
        candidates=torch.zeros(300, 128),
        device="cpu",
    )
    both = torch.cat((drafting, nodes, final.unsqueeze(1)), dim=1)
    for row in both[:20]:
        assert row.unique().numel() > both.shape[1] - 3
    links = torch.corrcoef(torch.stack((drafting[:, 0], nodes[:, 0], final, drafting[:, 1], nodes[:, 1])))
    assert (links - torch.eye(5)).abs().max() < 4 / math.sqrt(300)


def test_unseeded_coins_are_fresh_and_uniform() -> None:
    one, other = sampler([Params()] * 3000).coins, sampler([Params()] * 3000).coins
    assert not torch.equal(one, other)
    assert one.min() >= 0 and one.max() < 1 and abs(one.mean().item() - 0.5) < 0.03


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("params", [Params(), Params(0.7, top_k=3), Params(1.3, top_p=0.8, min_p=0.05)])
def test_the_accept_rate_is_the_sum_of_the_smaller_probabilities(params: Params, seed: int) -> None:
    """Drawn by the sampler, verified as in the worker, with coins at random: within 3.9 standard errors (one run in ten
    thousand is not), twice at most; and not below the rule that knows nothing of the law."""
    rng = random.Random(f"{params}{seed}")
    target, draft = random_logits(rng, 1, V), random_logits(rng, 1, V)
    any_filter = params != Params(params.temperature)
    p = sampler_law(Case([-1], [0], target, params), any_filter)[0]
    q = sampler_law(Case([-1], [0], draft, params), any_filter)[0]
    theory = torch.minimum(p, q).sum().item()
    for part in (1.0, 0.7):
        want = torch.minimum(p, part * q).sum().item() if part < 1 else theory
        assert any(abs(z) < 3.9 for z in (_z_score(params, target, draft, part, want, 2 * seed + i) for i in range(2)))
        assert want >= part * (p * q).sum().item() - 1e-9


def _z_score(
    params: Params, target: torch.Tensor, draft: torch.Tensor, part: float, want: float, torch_seed: int
) -> float:
    """How many standard errors the accept rate of many drafts lies from `want`. part: of the draft's mass, the rest is
    no target token."""
    from sglang_hetero_spec.worker.merge import MergedLaw
    from sglang_hetero_spec.worker.sampling import reject_by_law, target_probs

    count = 20_000
    torch.manual_seed(torch_seed)
    draws = sampler([params] * count)
    if part == 1:
        drawn, law = draws.draw(draft.expand(count, V), 0)
    else:
        any_filter = params != Params(params.temperature)
        q = sampler_law(Case([-1], [0], draft, params), any_filter)[0].float() * part
        drawn, law = draws.draw_from(q.expand(count, V), 0)
    void = drawn == V
    merged = MergedLaw(
        drawn=torch.ones(count, dtype=torch.bool),
        probs=torch.stack((law, torch.zeros_like(law)), dim=1),
        void=torch.stack((void, torch.zeros_like(void)), dim=1),
        num_drafts=torch.ones(count, dtype=torch.int64),
    )
    candidates = torch.stack((torch.zeros_like(drawn), torch.where(void, 0, drawn)), dim=1)
    probs = target_probs(target.expand(2 * count, V), sampling_info([params] * count), 2).view(count, 2, V)
    walk = reject_by_law(merged, candidates, probs, torch.rand(count, 2), torch.rand(count))
    rate = walk.num_correct.float().mean().item()
    return (rate - want) / max(math.sqrt(want * (1 - want) / count), 1e-6)
