from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.align import AlignError, load_settings


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "align.yaml"
    path.write_text("tokens: 10\nlora: {r: 4}\nloss: reverse_kl\n")
    found = load_settings(path, {"tokens": 20, "lora.alpha": 8.0})
    assert (found.tokens, found.lora.r, found.lora.alpha, found.loss) == (20, 4, 8.0, "reverse_kl")
    assert found.digest() != load_settings(path, {}).digest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lerning_rate: 1.0", "no setting `lerning_rate`"),
        ("lora: {rank: 3}", "no setting `lora.rank`"),
        ("tokens: many", '`tokens` cannot be "many"'),
        ("tokens: 0", "`tokens` cannot be 0"),
        ("epochs: -1.0", "`epochs` cannot be -1"),
        ("loss: l2", '`loss` cannot be "l2"'),
        (
            "layers: 1\nshape: {hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 8}",
            "exclude",
        ),
        ("layers: 1\nlora: {r: 2}", "needs a base drafter"),
        ("exits: [2, 1]", "`exits` is [2, 1]: give numbers of layers, ascending"),
        ("exits: [1, 1]", "`exits` is [1, 1]: give numbers of layers, ascending"),
        ("exits: []", "`exits` is []: give numbers"),
        ("exits: [0, 1]", "`exits` cannot be 0"),
        ("exits: [1, 2]\nlora: {r: 2}", "`exits` trains a whole model"),
        ("- 1", "not `key: value`"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_settings_get_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "align.yaml"
    path.write_text(text)
    with pytest.raises(AlignError) as caught:
        load_settings(path, {})
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_do_for_real_ones(tmp_path: Path) -> None:
    path = tmp_path / "align.yaml"
    path.write_text("epochs: 2\n")
    assert load_settings(path, {}).epochs == 2.0
