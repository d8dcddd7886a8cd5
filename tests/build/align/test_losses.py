"""Losses and their gradients against what their definitions say, in float64 and without autograd."""

from __future__ import annotations

import math

import pytest
import torch

from sglang_hetero_spec.build.align import losses

N, V = 5, 7


def logits(seed: int) -> torch.Tensor:
    return 2 * torch.randn(N, V, generator=torch.Generator().manual_seed(seed))


def probs(values: torch.Tensor) -> list[list[float]]:
    rows = []
    for row in values.tolist():
        weights = [math.exp(value) for value in row]
        rows.append([weight / sum(weights) for weight in weights])
    return rows


def reference(name: str, q: list[list[float]], p: list[list[float]]) -> float:
    total = 0.0
    for ours, theirs in zip(q, p, strict=True):
        for drafter, target in zip(ours, theirs, strict=True):
            if name == "forward_kl":
                total += target * math.log(target / drafter)
            elif name == "reverse_kl":
                total += drafter * math.log(drafter / target)
            else:
                total += abs(drafter - target) / 2
    return total / len(q)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "tvd++"])
def test_value(name: str) -> None:
    student, teacher = logits(1), logits(2)
    found = losses.LOGIT_LOSSES[name](losses.log_probs(student, V), losses.log_probs(teacher, V))
    assert found.item() == pytest.approx(reference(name, probs(student), probs(teacher)), rel=1e-5)


def test_forward_kl_in_one_is_the_same_with_the_same_gradient() -> None:
    """Also where the drafter has more ids than the target, and a token that cannot be."""
    teacher = losses.log_probs(logits(2), V - 1)
    found = []
    for loss in (lambda x: losses.forward_kl(losses.log_probs(x, V - 1), teacher),
                 lambda x: losses.forward_kl_of_logits(x, teacher)):  # fmt: skip
        student = logits(1)
        student[0, 3] = -1e6
        student.requires_grad_()
        value = loss(student)
        (3 * value).backward()
        found.append((value.detach(), student.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert (found[0][1][:, V - 1] == 0).all() and (found[1][1][:, V - 1] == 0).all()
    torch.testing.assert_close(found[0][1][1:], found[1][1][1:])


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_gradient_by_finite_differences(name: str) -> None:
    student, teacher = logits(1).requires_grad_(), logits(2)
    losses.LOGIT_LOSSES[name](losses.log_probs(student, V), losses.log_probs(teacher, V)).backward()
    p, step = probs(teacher), 1e-6
    for row, token in ((0, 0), (2, 3), (4, 6)):
        sides = []
        for sign in (1, -1):
            moved = student.detach().double().clone()
            moved[row, token] += sign * step
            sides.append(reference(name, probs(moved), p))
        assert student.grad[row, token].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-4)


def test_tvd_plus_plus_is_the_gradient_of_tvd_over_the_rewards_spread() -> None:
    student, teacher = logits(1).requires_grad_(), logits(2)
    losses.tvd_plus_plus(losses.log_probs(student, V), losses.log_probs(teacher, V)).backward()
    q, p = probs(student.detach()), probs(teacher)
    rewards = [[float(b > a) for a, b in zip(x, y, strict=True)] for x, y in zip(q, p, strict=True)]
    flat = [(w, r) for x, y in zip(q, rewards, strict=True) for w, r in zip(x, y, strict=True)]
    mean = sum(w * r for w, r in flat) / N
    spread = math.sqrt(sum(w * (r - mean) ** 2 for w, r in flat) / N)
    for row in range(N):
        for token in range(V):
            # d q_x / d logit_t = q_x (1[x = t] - q_t), and TVD = const - sum of q over the rewarded tokens.
            slope = -sum(q[row][x] * ((x == token) - q[row][token]) * rewards[row][x] for x in range(V))
            assert student.grad[row, token].item() == pytest.approx(slope / N / spread, abs=1e-5)


def test_tvd_plus_plus_by_sampling() -> None:
    """The policy gradient as the paper has it, estimated from samples of the drafter."""
    student, teacher = logits(1).requires_grad_(), logits(2)
    losses.tvd_plus_plus(losses.log_probs(student, V), losses.log_probs(teacher, V)).backward()
    exact = student.grad.clone()
    logq = student.log_softmax(-1)
    drawn = torch.multinomial(
        logq.detach().exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    reward = (teacher.log_softmax(-1) > logq.detach()).float().gather(1, drawn)
    advantage = (reward - reward.mean()) / reward.std()
    student.grad = None
    (-(logq.gather(1, drawn) * advantage).mean()).backward()
    assert torch.allclose(student.grad, exact, atol=3e-3)


@pytest.mark.parametrize("name", sorted(losses.LOGIT_LOSSES))
def test_nothing_to_learn_from_oneself(name: str) -> None:
    student = logits(1).requires_grad_()
    loss = losses.LOGIT_LOSSES[name](losses.log_probs(student, V), losses.log_probs(student.detach(), V))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", sorted(losses.LOGIT_LOSSES))
def test_finite_where_a_token_is_impossible(name: str) -> None:
    student, teacher = logits(1).requires_grad_(), logits(2)
    teacher[:, 0] = float("-inf")
    losses.LOGIT_LOSSES[name](losses.log_probs(student, V), losses.log_probs(teacher, V)).backward()
    assert torch.isfinite(student.grad).all()


def test_padded_vocabularies_are_compared_where_both_are() -> None:
    student, teacher = logits(1), torch.cat([logits(2), torch.full((N, 3), 9.0)], -1)
    assert torch.allclose(losses.log_probs(teacher, V), losses.log_probs(logits(2), V))
    assert losses.log_probs(student, V).shape == (N, V)


def test_top_k_with_the_rest_bounds_the_kl_and_meets_it() -> None:
    student, teacher = losses.log_probs(logits(1), V), losses.log_probs(logits(2), V)
    full = losses.forward_kl(student, teacher).item()
    for k in (2, 4, 6):
        top = teacher.topk(k)
        part = losses.forward_kl(losses.with_rest(student, top.indices), losses.append_rest(top.values)).item()
        assert part <= full + 1e-6
    assert part == pytest.approx(full, rel=1e-3)  # k = V - 1: the rest is one token
