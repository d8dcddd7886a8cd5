"""Which forwards are captured for which drafters."""

from __future__ import annotations

from sglang_hetero_spec.cuda.graphs.shapes import GraphShape, graph_shapes
from sglang_hetero_spec.pool import DrafterSpec


def spec(num_steps: int, topk: int = 1) -> DrafterSpec:
    return DrafterSpec("code", "standalone", None, "shared", num_steps, topk, num_steps * topk + 1)


def test_a_chain_reads_a_window_of_two_and_one_token_after_the_other() -> None:
    assert graph_shapes([spec(4)], 0, False) == (GraphShape("window", 2), GraphShape("next", 1))
    assert graph_shapes([spec(1)], 0, False) == (GraphShape("window", 2),), "its only draft follows the window"


def test_a_tree_reads_its_accepted_path_again_and_all_levels_at_one_width() -> None:
    assert graph_shapes([spec(3, topk=4)], 0, False) == (GraphShape("window", 4), GraphShape("tree", 8))


def test_pairs_have_wider_windows() -> None:
    assert graph_shapes([spec(4)], 6, False) == (
        GraphShape("window", 2),
        GraphShape("window", 7),
        GraphShape("next", 1),
    )


def test_adapters_of_another_shape_add_theirs() -> None:
    shapes = graph_shapes([spec(4), spec(4), spec(2, topk=3)], 0, False)
    assert shapes == (GraphShape("window", 2), GraphShape("next", 1), GraphShape("window", 3), GraphShape("tree", 3))


def test_texts_of_any_width_have_no_graph() -> None:
    slrs = DrafterSpec("bytes", "standalone", None, "slrs", 4, 1, 5)
    assert graph_shapes([slrs], 0, True) == ()


def test_windows_of_own_sequences_are_of_any_width() -> None:
    assert graph_shapes([spec(4)], 0, True) == (GraphShape("next", 1),)
    assert graph_shapes([spec(1)], 0, True) == ()
