"""The n-gram drafter over requests that come and go."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.ngram import NgramDrafter
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftTree
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.ngram.drafting import PIECE
from sglang_hetero_spec.ngram.files import write_corpus
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.committed import CommittedTokens
from sglang_hetero_spec.worker.history import TokenHistory

NUM_IDS = 1000
SPEC = DrafterSpec("copies", "ngram", None, "shared", 4, 3, 10, capacity=1 << 14)


@dataclass
class World:
    """Requests with their committed tokens, in rows of a real history."""

    spec: DrafterSpec = SPEC
    texts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history = TokenHistory(16, 4096, "cpu")
        committed = CommittedTokens()
        committed.attach(self.history)
        self.drafter = NgramDrafter(self.spec, committed, NUM_IDS)
        self.rows: dict[str, int] = {}

    def give(self, rid: str, tokens: list[int]) -> None:
        self.texts[rid] = [*self.texts.get(rid, []), *tokens]

    def batch(self, *rids: str, wants_scores: bool = False) -> DraftBatch:
        newcomers = []
        for number, rid in enumerate(rids):
            if rid not in self.rows:
                self.rows[rid] = next(row for row in range(16) if row not in self.rows.values())
                self.drafter.admit(rid)
                newcomers.append(number)
            text = self.texts[rid]
            self.history.tokens[self.rows[rid], : len(text)] = torch.tensor(text)
        lens = torch.tensor([len(self.texts[rid]) - 1 for rid in rids])
        return DraftBatch(
            rows=torch.tensor([self.rows[rid] for rid in rids]),
            seq_lens=lens,
            root_tokens=torch.tensor([self.texts[rid][-1] for rid in rids]),
            newcomers=tuple(newcomers),
            rids=rids,
            wants_scores=wants_scores,
        )

    def propose(self, *rids: str) -> DraftTree:
        return self.drafter.propose(self.batch(*rids))

    def end(self, rid: str) -> None:
        self.drafter.release(rid)
        del self.rows[rid], self.texts[rid]


def best_path(tree: DraftTree, row: int) -> list[int]:
    """The first child of each node, the likeliest."""
    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    path, node = [], 0
    while node in parents[1:]:
        node = parents.index(node, 1)
        path.append(tokens[node])
    return path


def numbers(seed: int, count: int) -> list[int]:
    return random.Random(seed).sample(range(NUM_IDS), count)


def test_a_prompt_is_copied() -> None:
    world = World()
    text = numbers(1, 40)
    world.give("a", [*text, *text[5:9]])
    tree = world.propose("a")
    assert best_path(tree, 0) == text[9:13]
    assert (tree.num_fed, tree.width, tree.depth, tree.tokens.dtype) == (0, 10, 4, torch.int64)
    world.give("a", text[9:12])
    assert best_path(world.propose("a"), 0) == text[12:16]


def test_requests_without_a_match_have_the_root_alone() -> None:
    world = World()
    world.give("a", numbers(1, 30))
    world.give("b", [7, 8, 9, 7])
    tree = world.propose("a", "b")
    assert tree.proposed == (0, 4) and not tree.is_chain
    assert tree.parents[0].tolist() == [NO_NODE] * 10
    assert tree.tokens[0].tolist() == [world.texts["a"][-1]] * 10
    assert tree.tokens[1].tolist()[:5] == [7, 8, 9, 7, 8] and tree.parents[1].tolist()[:5] == [-1, 0, 1, 2, 3]


def test_a_full_chain_is_one() -> None:
    world = World(replace(SPEC, num_steps=3, topk=1, num_draft_tokens=4))
    world.give("a", [1, 2, 3, 4, 5, 1])
    tree = world.propose("a")
    assert tree.is_chain and tree.num_proposed is None and tree.tokens.tolist() == [[1, 2, 3, 4]]


def test_answers_are_proposed_to_others_and_prompts_are_not() -> None:
    world = World()
    prompt, answer, other = numbers(1, 40), numbers(2, 40), numbers(3, 20)
    world.give("a", [*prompt, answer[0]])
    world.propose("a")
    world.give("a", answer[1:])
    world.propose("a")
    world.give("b", [*other, *answer[10:13]])
    assert world.propose("a", "b").proposed[1] == 0, "the answer goes on"
    world.end("a")
    assert best_path(world.propose("b"), 0) == answer[13:17]
    world.give("c", [*other, *prompt[10:13]])
    assert world.propose("c").proposed == (0,)


def test_long_answers_are_shared_while_they_go_on() -> None:
    world = World()
    answer = numbers(2, 2 * PIECE)
    world.give("a", [*numbers(1, 10), answer[0]])
    world.propose("a")
    world.give("a", answer[1 : PIECE + 5])
    world.propose("a")
    world.give("a", answer[PIECE + 5 : 2 * PIECE])
    world.give("b", [*numbers(3, 10), *answer[20:24]])
    assert best_path(world.propose("a", "b"), 1) == answer[24:28]


def test_what_was_answered_does_not_depend_on_when_a_request_is_let_go() -> None:
    """Processes of a tensor-parallel server must propose the same."""
    trees = []
    for late in (False, True):
        world = World()
        answers = [numbers(seed, 60) for seed in (1, 2)]
        for rid, answer in zip("ab", answers, strict=True):
            world.give(rid, [5, 6, *answer[:1]])
        world.propose("a", "b")
        for rid, answer in zip("ab", answers, strict=True):
            world.give(rid, answer[1:])
        world.propose("a", "b")
        for rid in "ba" if late else "ab":
            if not late:
                world.end(rid)
        world.give("c", [9, *answers[0][5:8], *answers[1][7:9]])
        trees.append([world.propose("c").tokens.tolist()])
        if late:
            world.end("b"), world.end("a")
        world.give("c", answers[1][9:12])
        trees[-1].append(world.propose("c").tokens.tolist())
    assert trees[0] == trees[1]


def test_nothing_is_kept_of_a_request_that_was_let_go() -> None:
    world = World()
    for number in range(30):
        world.give("a", numbers(number, 50))
        world.propose("a")
        world.give("a", [3, 4])
        if number % 2:
            world.propose("a")
        world.end("a")
    world.give("b", [1, 2])
    world.propose("b")
    assert set(world.drafter.drafting._texts) == {"b"}


def test_tokens_that_were_taken_back_are_forgotten() -> None:
    """SGLang drops the steps in flight of a request whose memory it takes; it is a newcomer then."""
    world = World()
    text = numbers(1, 40)
    world.give("a", [*text, 990, 991, 992])
    world.propose("a")
    world.texts["a"] = [*text, *text[3:6]]
    tree = world.drafter.propose(replace(world.batch("a"), newcomers=(0,)))
    assert best_path(tree, 0) == text[6:10]
    assert world.drafter.drafting._texts["a"].tokens.tolist() == world.texts["a"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 300])
def test_any_number_of_new_tokens_is_read(count: int) -> None:
    world = World()
    rng = random.Random(count)
    for rid in "ab":
        world.give(rid, [rng.randrange(NUM_IDS) for _ in range(50)])
    world.propose("a", "b")
    world.give("a", [rng.randrange(NUM_IDS) for _ in range(count)])
    world.give("b", [1])
    world.propose("a", "b")
    for rid in "ab":
        assert world.drafter.drafting._texts[rid].tokens.tolist() == world.texts[rid]


def test_scores_where_trees_are_merged() -> None:
    world = World()
    world.give("a", [1, 2, 3, 1, 2, 4, 1, 2])
    assert world.propose("a").scores is None
    scores = world.drafter.propose(world.batch("a", wants_scores=True)).scores
    assert scores is not None and scores.dtype == torch.float32 and scores[0, 0] == 0.0
    tree = world.propose("a")
    for node in range(1, tree.proposed[0] + 1):
        assert scores[0, node] <= scores[0, int(tree.parents[0, node])] < 0.0 + (int(tree.parents[0, node]) == 0)


def test_a_corpus_to_begin_with(tmp_path: Path) -> None:
    texts = [numbers(1, 30), numbers(2, 20)]
    write_corpus(tmp_path, texts)
    world = World(replace(SPEC, path=tmp_path))
    world.give("a", [*numbers(3, 10), *texts[1][4:7]])
    assert best_path(world.propose("a"), 0) == texts[1][7:11]


def test_a_corpus_of_another_target(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[1, NUM_IDS]])
    with pytest.raises(HeteroError, match=r"holds the token id 1000, and the target has 1,000"):
        World(replace(SPEC, path=tmp_path))


def test_memory_is_bounded_whatever_is_answered() -> None:
    """Like a long day: far more is answered than the corpus can hold."""
    world = World(replace(SPEC, capacity=1 << 12))
    corpus = world.drafter.drafting.corpus
    num_bytes, rng = corpus.num_bytes, np.random.default_rng(5)
    for number in range(200):
        rid = f"r{number}"
        world.give(rid, rng.integers(0, NUM_IDS, 30).tolist())
        world.propose(rid)
        for _ in range(6):
            world.give(rid, rng.integers(0, NUM_IDS, 100).tolist())
            world.propose(rid)
        world.end(rid)
    assert corpus.num_inserted > 20 * corpus.capacity
    assert corpus.num_bytes == num_bytes == 4096 * 36 and corpus.num_tokens == 4096
    assert len(world.drafter.drafting._texts) <= 1
