"""Drafters of each kind, and pairs of them, end to end on a vocabulary of a few tokens: over all drafts that could be
drawn and all coins of verification, the emitted tokens have the target's law."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.worker.merge import Proposal, combine_proposals
from tests.worker import drafted, kinds
from tests.worker.drafted import Proposed, all_drawn, likeliest
from tests.worker.enumeration import GREEDY, Params
from tests.worker.kinds import ADAPTERS, BASE, PROMPT, VOCAB_SIZE, Kind
from tests.worker.test_sampling_exact import one_rank

__all__ = ["one_rank"]

pytestmark = pytest.mark.usefixtures("one_rank")

NUM_STEPS = 2
PARAMS = {
    "temperature 1": Params(),
    "temperature 0.6": Params(0.6),
    "all filters": Params(1.3, top_k=3, top_p=0.9, min_p=0.1),
    "greedy": GREEDY,
}
EACH_PARAMS = pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())


def check(everything: list[Proposed], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return drafted.check(everything, PROMPT, VOCAB_SIZE, monkeypatch)


def drawn(make: Callable[[int], Kind], params: Params) -> Proposed:
    """All chains that a drafter could draw."""
    return all_drawn(params, VOCAB_SIZE, NUM_STEPS, lambda count, sampler: make(count).asked(sampler).propose())


def chosen(make: Callable[[int], Kind], params: Params) -> Proposed:
    """The tree that a drafter chooses, however its request samples."""
    tree = make(1).asked(likeliest(params, 1, NUM_STEPS)).propose()
    assert tree.law is None
    return Proposed(tree, [1.0], params)


def adapters(params: Params) -> list[Proposed]:
    """All chains of the base and of each adapter, proposed in one batch: a request of each, one after the other."""
    numbers = (BASE, *ADAPTERS)
    columns = drafted.scripts(VOCAB_SIZE, NUM_STEPS).repeat_interleave(len(numbers), dim=0)
    sampler = drafted.Steered([params] * len(columns), columns)
    tree = kinds.lora(len(columns)).asked(sampler).propose()
    parts = [list(range(start, len(columns), len(numbers))) for start in range(len(numbers))]
    return [Proposed(tree.select(part), sampler.weights[part].tolist(), params) for part in parts]


def has_siblings(tree: DraftTree) -> bool:
    parents = [parent for parent in tree.parents[0].tolist() if parent != NO_NODE]
    return len(set(parents)) < len(parents)


@EACH_PARAMS
def test_standalone(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    check([drawn(kinds.standalone, params)], monkeypatch)


@EACH_PARAMS
def test_trees(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = chosen(kinds.standalone_tree, params)
    assert has_siblings(tree.tree)
    check([tree], monkeypatch)


@EACH_PARAMS
def test_adapters_of_one_base_in_one_batch(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    each = adapters(params)
    if params != GREEDY:
        laws = [one.tree.law.probs[0, 0] for one in each]
        assert not any(torch.equal(laws[0], other) for other in laws[1:]), "each has a law of its own"
    check(each, monkeypatch)


@EACH_PARAMS
def test_sorted(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Kind] = []

    def make(count: int) -> Kind:
        made.append(kinds.sorted_exits(count))
        return made[-1]

    one = drawn(make, params)
    at_first, at_second, at_last = made[0].model.reached
    assert at_first >= at_second > at_last > 0 or params == GREEDY, "drafts leave at different exits"
    check([one], monkeypatch)


@EACH_PARAMS
def test_ngram(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    one = chosen(kinds.ngram, params)
    assert has_siblings(one.tree)
    (accepted,) = check([one], monkeypatch)
    assert accepted > 0.1 or params == GREEDY


PAIRS: dict[str, tuple[Callable[[int], Kind], Callable[[int], Kind]]] = {
    "standalone and ngram": (kinds.standalone, kinds.ngram),
    "lora and ngram": (kinds.lora, kinds.ngram),
    "sorted and ngram": (kinds.sorted_exits, kinds.ngram),
    "standalone and sorted": (kinds.standalone, kinds.sorted_exits),
    "a tree and lora": (kinds.standalone_tree, kinds.lora),
    "sorted and lora": (kinds.sorted_exits, kinds.lora),
}


def merged(pair: tuple[Callable[[int], Kind], Callable[[int], Kind]], width: int, params: Params) -> Proposed:
    """The one tree of a request with two drafters, as the worker makes it."""
    parts = []
    for number, make in enumerate(pair):
        tree = make(1).asked(likeliest(params, 1, NUM_STEPS), wants_scores=True).propose()
        parts.append(Proposal([0], torch.tensor([0]), [number], tree))
    (one,) = combine_proposals(parts, width)
    return Proposed(one.tree, [1.0], params)


@EACH_PARAMS
@pytest.mark.parametrize("width", [3, 8])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_merged_trees(
    pair: tuple[Callable[[int], Kind], Callable[[int], Kind]],
    width: int,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole, and cut."""
    check([merged(pair, width, params)], monkeypatch)


@pytest.mark.parametrize("seed", range(2))
def test_everything_in_one_batch(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of every kind and merged ones, each with parameters of its own, padded to one width."""
    params = list(PARAMS.values())[seed:] + list(PARAMS.values())[:seed]
    check(
        [
            drawn(kinds.standalone, params[0]),
            *adapters(params[1]),
            drawn(kinds.sorted_exits, params[2]),
            chosen(kinds.ngram, params[3]),
            chosen(kinds.standalone_tree, params[0]),
            merged(PAIRS["standalone and ngram"], 8, params[1]),
            merged(PAIRS["sorted and lora"], 8, params[2]),
        ],
        monkeypatch,
    )
