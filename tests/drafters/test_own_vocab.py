"""Drafters with a vocabulary of their own follow the target's tokens, over a model that checks what it is asked."""

from __future__ import annotations

import random

import pytest
import torch

from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.vocab.intersection import NO_TOKEN
from tests.drafters import reference
from tests.drafters.own_world import SeededSampler, World, accepted_path, make_world, random_tokens
from tests.drafters.tiny_vocab import NAMES, WITH_SHARED, pairing

SHAPES = {
    "tli": [(1, 1, 2), (4, 1, 5), (3, 2, 6)],
    "slem": [(1, 1, 4), (5, 1, 8), (6, 1, 8)],
    "slrs": [(1, 1, 2), (3, 1, 4)],
}
WAYS = [
    (mode, vocab, shape)
    for mode, shapes in SHAPES.items()
    for vocab in (WITH_SHARED if mode == "tli" else NAMES)
    for shape in shapes
    # topk 2 of one shared token is no tree; an odd number of letters is no pairs of them
    if not (shape[1] == 2 and len(pairing(vocab).shared.draft_ids) < 2)
    and not (mode == "slem" and vocab == "none" and shape[0] % 2)
]


def world_of(mode: str, vocab: str, shape: tuple[int, int, int], seed: int = 0, **sizes: int) -> World:
    num_steps, topk, width = shape
    return make_world(mode, vocab, num_steps=num_steps, topk=topk, width=width, seed=seed, **sizes)


def some_sampler(rng: random.Random, size: int) -> SeededSampler | None:
    if rng.random() < 0.4:
        return None
    coins = [[rng.random() for _ in range(8)] for _ in range(size)]
    return SeededSampler(torch.tensor([[rng.choice([0.5, 1.0, 2.0])] for _ in range(size)]), torch.tensor(coins))


def spelled(world: World, tokens: list[int]) -> tuple[int, ...]:
    """What a drafter that reads target tokens one by one should have read."""
    found: list[int] = []
    for token in tokens:
        read = world.pairing.shared.read_as(token).tolist()
        if not found and read[:1] != list(world.pairing.draft.begin[:1]):
            found += world.pairing.draft.begin
        found += read
    return tuple(found)


def check_history(world: World, number: int) -> None:
    tokens, history = world.committed[number], world.history(number)
    if world.mode != "slem":
        assert history == spelled(world, tokens)
        return
    reader = world.drafter._readings[f"r{number}"].history
    # These tokenizers have no prefix space: a text is the bytes of its tokens.
    target, draft = world.pairing.target.table, world.pairing.draft.table
    can_say = {piece for piece in draft.pieces if piece}
    text = target.in_the_middle(tokens)
    said = b"".join(bytes([byte]) for byte in text if bytes([byte]) in can_say)
    assert draft.in_the_middle(history) + reader.held == said
    num_ends = sum(token in target.eos for token in tokens)
    assert [token for token in history if token in draft.eos] == list(draft.eos[:1]) * num_ends


def check_tree(world: World, numbers: list[int], tree: DraftTree) -> None:
    spec = world.drafter.spec
    assert tree.tokens.shape == tree.parents.shape == (len(numbers), spec.num_draft_tokens)
    assert tree.num_fed == 0 and tree.tokens[:, 0].tolist() == [world.committed[n][-1] for n in numbers]
    assert tree.tokens.min() >= 0 and tree.tokens.max() < world.num_target
    for i in range(len(numbers)):
        parents, tokens = tree.parents[i].tolist(), tree.tokens[i].tolist()
        reached = reference.reachable(parents)
        proposed = spec.num_draft_tokens - 1 if tree.num_proposed is None else tree.num_proposed[i]
        assert len(reached) - 1 == proposed
        assert max(len(reference.path_to(parents, node)) for node in reached) - 1 <= tree.depth
        for node in reached:
            siblings = [tokens[child] for child in reference.children_of(parents, node)]
            assert len(set(siblings)) == len(siblings)
    if tree.law is not None:
        check_law(world, tree)


def check_law(world: World, tree: DraftTree) -> None:
    """Each draft has mass in its law, whoever has no drafts has none, and a void one is not in the tree's law."""
    law = tree.law.over_target(world.num_target)
    assert law.shape == (*tree.tokens[:, 1:].shape, world.num_target) and (law.sum(-1) < 1 + 1e-5).all()
    for i in range(len(tree.tokens)):
        is_drafted_for = tree.num_proposed is None or tree.num_proposed[i] > 0
        for place, token in enumerate(tree.tokens[i, 1:].tolist()):
            is_void = tree.law.void is not None and bool(tree.law.void[i, place])
            assert not (is_void and not is_drafted_for)
            assert is_void or (law[i, place, token] > 0) == is_drafted_for


def check_contexts(world: World, numbers: list[int]) -> None:
    """The first window of a proposal ends with all that was committed."""
    if world.sequences.contexts:
        for number in numbers:
            row = world.own_row(number)
            if row in world.sequences.contexts[0]:
                assert world.sequences.contexts[0][row] == world.history(number)


@pytest.mark.parametrize(("mode", "vocab", "shape"), WAYS)
@pytest.mark.parametrize("seed", range(2))
def test_every_step_reads_what_was_committed(seed: int, mode: str, vocab: str, shape: tuple[int, int, int]) -> None:
    """Batches of any requests, any part of a path accepted, other drafters' steps between; rows are lost and slots
    are few, so that not all requests of a batch can be drafted for."""
    rng = random.Random(f"{seed}{mode}{vocab}{shape}")
    world = world_of(mode, vocab, shape, seed, num_rows=4, num_pages=rng.choice([30, 60]), max_len=90)
    num_drafted = num_root_only = 0
    for number, length in enumerate([1, 2, 5, 23, 40]):
        world.add(number, random_tokens(rng, world, length))
    for _ in range(22):
        numbers = rng.sample(sorted(world.committed), rng.randint(1, 4))
        world.sequences.fails = {f"r{n}" for n in numbers if rng.random() < 0.1}
        tree = world.propose(numbers, some_sampler(rng, len(numbers)))
        check_tree(world, numbers, tree)
        check_contexts(world, numbers)
        for i, number in enumerate(numbers):
            check_history(world, number)
            proposed = tree.width - 1 if tree.num_proposed is None else tree.num_proposed[i]
            num_drafted, num_root_only = num_drafted + (proposed > 0), num_root_only + (proposed == 0)
            world.committed[number] += [*accepted_path(rng, tree, i), rng.randrange(world.num_target)]
        disturb(rng, world)
    assert num_drafted > 5 and num_root_only > 0


def disturb(rng: random.Random, world: World) -> None:
    number = rng.choice(sorted(world.committed))
    chance = rng.random()
    if chance < 0.15:
        world.sequences.close(f"r{number}")
    elif chance < 0.4:
        world.committed[number] += random_tokens(rng, world, rng.choice([1, 3, 30]))
    elif chance < 0.5:
        world.drafter.release(f"r{number}")
        assert world.own_row(number) is None
        world.add(number, random_tokens(rng, world, rng.randint(1, 30)))


@pytest.mark.parametrize("topk", [1, 2])
@pytest.mark.parametrize("vocab", ["partial", "specials", "the same"])
def test_tli_proposes_the_likeliest_shared_tokens(vocab: str, topk: int) -> None:
    world = world_of("tli", vocab, (3, topk, 4 if topk == 1 else 6))
    rng = random.Random(1)
    shared = world.pairing.shared
    draft_ids = shared.draft_ids.tolist()
    for number in range(3):
        world.add(number, random_tokens(rng, world, 6))
        world.committed[number].append(int(shared.draft_to_target[draft_ids[0]]))
    tree = world.propose([0, 1, 2])
    for i in range(3):
        paths = {
            tuple(tree.tokens[i, reference.path_to(tree.parents[i].tolist(), node)[1:]].tolist())
            for node in range(1, tree.width)
        }
        pruned = Pruned(world, draft_ids)
        beam = reference.beam(pruned, world.history(i), topk, 3)
        want = reference.likeliest(beam, tree.width - 1)
        assert paths == {tuple(int(shared.draft_to_target[d]) for d in path) for path in want}


class Pruned(reference.ContextModel):
    """The drafter's model with a head of the shared tokens alone."""

    def __init__(self, world: World, draft_ids: list[int]) -> None:
        super().__init__(world.sequences.model.model.vocab_size, world.sequences.model.model._seed)
        self._draft_ids = set(draft_ids)

    def logits(self, context: tuple[int, ...]) -> list[float]:
        found = super().logits(context)
        return [x if i in self._draft_ids else -1e9 for i, x in enumerate(found)]


@pytest.mark.parametrize("vocab", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_slem_proposes_what_the_drafter_wrote(vocab: str, seed: int) -> None:
    """The chain behind the root says the drafter's likeliest text, or the beginning of it that is sure."""
    rng = random.Random(f"{vocab}{seed}")
    world = world_of("slem", vocab, (5, 1, 8), seed)
    target, draft = world.pairing.target.table, world.pairing.draft.table
    world.add(0, [token for token in random_tokens(rng, world, 9) if target.piece(token)] or [len(target) - 1])
    tree = world.propose([0])
    held = world.drafter._readings["r0"].history.held
    last = target.piece(world.committed[0][-1]) or b""
    path = draft_behind(world, held, last, 5 + bool(held))
    text_end = next((i for i, token in enumerate(path) if draft.piece(token) is None), len(path))
    written = draft.in_the_middle(path[:text_end])
    written = written[len(held) :] if written.startswith(held) else b""
    parents, tokens = tree.parents[0].tolist(), tree.tokens[0].tolist()
    said = [tokens[n] for n in reference.path_to(parents, tree.num_proposed[0])[1:]] if tree.num_proposed[0] else []
    chains = [[tokens[n] for n in reference.path_to(parents, node)[1:]] for node in reference.reachable(parents)]
    for chain in chains:
        assert written.startswith(target.in_the_middle(chain))
        end = [token for token in chain if target.piece(token) is None]
        want = int(world.pairing.shared.draft_to_target[path[text_end]]) if text_end < len(path) else NO_TOKEN
        assert end in ([], [want]) and (not end or target.in_the_middle(chain) == written)
    assert said in chains


def draft_behind(world: World, held: bytes, last: bytes, num_steps: int) -> list[int]:
    """The likeliest tokens one by one. The first ones say the held bytes, as the tokenizer could begin with them, and
    then nothing that the target would have said in one token with its last."""
    table, known = world.pairing.draft.table, world.pairing.target.table.ids_by_bytes
    context, path, said = world.history(0), [], b""
    for _ in range(num_steps):
        logits, left = world.draft_logits((*context, *path)), held[len(said) :]
        if len(said) <= len(held) and not any(table.piece(token) is None for token in path):
            sensible = {world.pairing.draft.spell(left + more)[0] for more in (b"", b"a", b"b") if left}
            for token, piece in enumerate(table.pieces):
                goes_on = bool(piece) and (piece.startswith(left) or token in sensible)
                is_joined = bool(piece and last and piece.startswith(left) and len(piece) > len(left)) and (
                    last + (piece or b"")[len(left) :] in known
                )
                if is_joined or (left and not goes_on):
                    logits[token] = -1e9
        path.append(max(range(len(logits)), key=logits.__getitem__))
        said += table.piece(path[-1]) or b""
    return path


@pytest.mark.parametrize("mode", ["tli", "slem", "slrs"])
def test_what_is_too_long_is_not_drafted_for(mode: str) -> None:
    world = world_of(mode, "the same", (3, 1, 4), max_len=40)
    world.add(0, [0] * 21)
    world.add(1, [0, 1, 0])
    world.committed[0] += [0] * (40 - world.drafter.room - 21)
    assert world.propose([0, 1]).num_proposed is None or mode == "slem"
    # One more than fits; of `slem` another, as it leaves the last token unread.
    world.committed[0] += [0] * (2 if mode == "slem" else 1)
    tree = world.propose([0, 1])
    assert tree.num_proposed[0] == 0 < tree.num_proposed[1]
    assert tree.parents[0].tolist() == [-1] * tree.width and tree.parents[1].tolist() != [-1] * tree.width
    world.committed[1] += [0] * 60
    tree = world.propose([0, 1])
    assert tree.num_proposed == (0, 0) and (tree.parents == -1).all()
    assert (tree.tokens == torch.tensor([[0]])).all()


@pytest.mark.parametrize("mode", ["tli", "slem", "slrs"])
def test_short_contexts_have_room_for_a_whole_window(mode: str) -> None:
    """Requests of one and of many unread tokens share a window, which is longer than the short one's context."""
    world = world_of(mode, "the same", (1, 1, 2), max_len=64)
    for number, length in enumerate([1, 16, 40]):
        world.add(number, [0] * length)
    for numbers in ([0, 1, 2], [2], [0, 1, 2]):
        check_tree(world, numbers, world.propose(numbers))
        world.committed[numbers[0]] += [1, 0]


@pytest.mark.parametrize("mode", ["tli", "slem", "slrs"])
def test_a_request_of_nothing_that_the_drafter_can_read(mode: str) -> None:
    world = world_of(mode, "partial", (2, 1, 3))
    unread = next(i for i in range(world.num_target) if not len(world.pairing.shared.read_as(i)))
    world.add(0, [unread])
    world.add(1, [1])
    world.committed[0].append(unread)
    tree = world.propose([0, 1])
    assert world.history(0) == () and tree.num_proposed[0] == 0 < tree.num_proposed[1]
    assert world.own_row(0) is None
    world.committed[0].append(1)
    check_tree(world, [0], world.propose([0]))
    assert world.history(0) and world.own_row(0) is not None
