"""The shortest and the longest requests are served or refused as without speculation."""

from __future__ import annotations

import json

import pytest
import requests

from tests.engine.cases import Case
from tests.engine.compare import Comparison
from tests.engine.fleet import Reference, ask
from tests.engine.pools import CHAINS, COPIES, EVERYONE, FOREIGN, SELF, SORTED, TREES, Models
from tests.support.servers import Server


@pytest.fixture(scope="module")
def context(models: Models) -> int:
    return json.loads((models.target / "config.json").read_text())["max_position_embeddings"]


def test_prompts_of_one_token(hetero: Server, reference: Reference, same_tokens: Comparison) -> None:
    """Ids; shorter than any drafter's window."""
    cases = [
        Case([10 + number] * length, drafter=drafter)
        for number, drafter in enumerate((*EVERYONE, *SELF, *SORTED, *FOREIGN))
        for length in ((1, 2, 3) if drafter not in FOREIGN else (1,))
    ]
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))


@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_few_new_tokens(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], num_tokens: int
) -> None:
    cases = [
        Case(prompts[number], drafter=drafter).with_params(max_new_tokens=num_tokens)
        for number, drafter in enumerate((*EVERYONE, *SELF, *SORTED, *FOREIGN))
    ]
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))


def test_up_to_the_context_limit(hetero: Server, reference: Reference, same_tokens: Comparison, context: int) -> None:
    """Requests that fill the context to its last token, all at once, beside one that does not."""
    cases = [
        Case(_ids(number, context - room), drafter=drafter).with_params(max_new_tokens=room - 1)
        for number, (drafter, room) in enumerate(
            zip(
                (*CHAINS, *TREES, *SELF, *FOREIGN, *COPIES, *SORTED),
                (7, 12, 20, 33, 50, 8, 70, 9, 16, 7, 11, 30, 60, 18, 15, 8, 10, 25, 40),
                strict=True,
            )
        )
    ]
    cases.append(Case(_ids(99, 20), drafter="tree-4"))
    expected = reference.answers(cases)
    assert all(len(answer["output_ids"]) > 2 for answer in expected)
    same_tokens.answers(cases, expected, ask(hetero, cases))


@pytest.mark.parametrize("room", [7, 6, 5, 2, 1, 0, -1])
def test_around_the_context_limit(
    hetero: Server, reference: Reference, same_tokens: Comparison, context: int, room: int
) -> None:
    """Too long or just not: the same answer or the same refusal."""
    for drafter in ("chain-6", "tree-4", "none", "tli-bpe", "slem-bytes"):
        case = Case(_ids(room, context - room), drafter=drafter).with_params(max_new_tokens=room + 1)
        plain = Case(case.prompt, case.params)
        expected, have = _post(reference.server, plain), _post(hetero, case)
        assert have.status_code == expected.status_code, have.text
        if expected.ok:
            same_tokens.answer(case, expected.json(), have.json())
        else:
            assert have.json() == expected.json()


@pytest.mark.parametrize("prompt", ["", "\x00\x01\x02\x07\x1b", " ", "\u200b\ufeff"], ids=repr)
def test_odd_prompts(hetero: Server, reference: Reference, same_tokens: Comparison, prompt: str) -> None:
    case = Case(prompt, drafter="tree-4").with_params(max_new_tokens=24)
    expected, have = _post(reference.server, Case(case.prompt, case.params)), _post(hetero, case)
    assert have.status_code == expected.status_code, have.text
    if expected.ok:
        same_tokens.answer(case, expected.json(), have.json())


def _ids(seed: int, length: int) -> list[int]:
    return [10 + (seed * 31 + place * 7) % 190 for place in range(length)]


def _post(server: Server, case: Case) -> requests.Response:
    key = "text" if isinstance(case.prompt, str) else "input_ids"
    return server.post("/generate", {key: case.prompt, **case.request()})
