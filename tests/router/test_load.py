"""A router is read strictly: whatever is wrong with its two files is told in one sentence."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from sglang_hetero_spec.router.errors import RouterError
from sglang_hetero_spec.router.fit import FittedRouter
from sglang_hetero_spec.router.predict import LinearRouter
from sglang_hetero_spec.router.store import RouterWeights, save_router_files


def refused(folder: Path) -> str:
    with pytest.raises(RouterError) as error:
        LinearRouter.load(folder)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.isascii() and sentence.endswith((".", "?"))
    assert len(sentence) < 500
    return sentence


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "router.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def replace_weights(folder: Path, tensors: dict[str, np.ndarray] | bytes) -> None:
    """New weights that the configuration knows by their hash."""
    data = tensors if isinstance(tensors, bytes) else save(tensors)
    (folder / "router.safetensors").write_bytes(data)
    edit(folder, lambda config: config.update(weights_sha256=hashlib.sha256(data).hexdigest()))


def test_what_was_saved_is_read_back(fitted: FittedRouter, router_dir: Path) -> None:
    router = LinearRouter.load(router_dir)
    assert router.classes == fitted.router.classes == ("code", "letters", "sums")
    for text in ("", "def f(x): return x", "How many apples?", "\ud800"):
        assert router.predict(text).probabilities.tolist() == fitted.router.predict(text).probabilities.tolist()


def test_a_fortran_ordered_array_is_not_scrambled(fitted: FittedRouter, tmp_path: Path) -> None:
    """safetensors writes the buffer as it lies, and scikit-learn's coefficients can lie in columns."""
    columns = np.asfortranarray(fitted.router.weights.coefficients)
    assert not columns.flags["C_CONTIGUOUS"]
    save_router_files(tmp_path, fitted.router.config, RouterWeights(columns))
    assert np.array_equal(LinearRouter.load(tmp_path).weights.coefficients, fitted.router.weights.coefficients)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format="other"), "`format`"),
        (lambda c: c.pop("format"), "`format`"),
        (lambda c: c.update(schema_version=2), "newer"),
        (lambda c: c.update(schema_version=True), "`schema_version`"),
        (lambda c: c.update(schema_version=0), "`schema_version`"),
        (lambda c: c.update(extra=1), "`extra`"),
        (lambda c: c["features"].update(extra=1), "`features.extra`"),
        (lambda c: c["calibration"].update(extra=1), "`calibration.extra`"),
        (lambda c: c.pop("classes"), "`classes` is missing"),
        (lambda c: c.update(classes=[]), "`classes`"),
        (lambda c: c.update(classes=["code"]), "`classes`"),
        (lambda c: c.update(classes=["code", "code", "sums"]), "twice"),
        (lambda c: c.update(classes=["code", "../x", "sums"]), "`classes.1`"),
        (lambda c: c.update(classes=["code", "a\n", "sums"]), "`classes.1`"),
        (lambda c: c.update(classes=["code", 7, "sums"]), "`classes.1`"),
        (lambda c: c.update(classes=["a", "b"]), "shape"),
        (lambda c: c["features"].update(kind="hashed_ngrams_v9"), "`features.kind`"),
        (lambda c: c["features"].update(bucket_bits=13), "shape"),
        (lambda c: c["features"].update(bucket_bits=31), "`features.bucket_bits`"),
        (lambda c: c["features"].update(head_bytes=10**9), "`features.head_bytes`"),
        (lambda c: c["features"].update(char_ngrams=[4, 2]), "`features.char_ngrams`"),
        (lambda c: c["features"].update(char_ngrams=[2, 2]), "`features.char_ngrams`"),
        (lambda c: c["features"].update(char_ngrams=[3, 4]), "`features.char_ngrams`"),
        (lambda c: c["features"].update(char_ngrams=[]), "`features.char_ngrams`"),
        (lambda c: c["calibration"].update(temperature=0), "`calibration.temperature`"),
        (lambda c: c["calibration"].update(temperature="1"), "`calibration.temperature`"),
        (lambda c: c["calibration"].pop("temperature"), "`calibration.temperature`"),
        (lambda c: c["thresholds"].update(min_confidence=2), "`thresholds.min_confidence`"),
        (lambda c: c.update(weights_sha256="0" * 64), "`weights_sha256`"),
        (lambda c: c.update(weights_sha256="x"), "`weights_sha256`"),
    ],
)
def test_configuration(router_dir: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    edit(router_dir, change)
    assert words in refused(router_dir)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000, "\x80\x04", "\ufeff{}"]
)
def test_configuration_that_is_no_json_object(router_dir: Path, text: str) -> None:
    (router_dir / "router.json").write_bytes(text.encode("latin-1", "replace"))
    assert "router.json" in refused(router_dir)


@pytest.mark.parametrize("name", ["router.json", "router.safetensors"])
def test_a_file_is_missing(router_dir: Path, name: str) -> None:
    (router_dir / name).unlink()
    assert name in refused(router_dir)


def test_no_folder(tmp_path: Path) -> None:
    assert "nowhere" in refused(tmp_path / "nowhere")


def test_weights_truncated_or_changed(router_dir: Path) -> None:
    path = router_dir / "router.safetensors"
    data = path.read_bytes()
    for broken in (data[:-1], data[:1000], b"", data[:-4] + b"\0\0\x80?"):
        path.write_bytes(broken)
        assert "router.safetensors" in refused(router_dir)


def test_weights_that_are_a_pickle(router_dir: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (router_dir / "exploded",))

    replace_weights(router_dir, pickle.dumps(Bomb()))
    assert "safetensors" in refused(router_dir)
    assert not (router_dir / "exploded").exists()


def test_weights_of_another_form(router_dir: Path) -> None:
    good = load_file(router_dir / "router.safetensors")["coefficients"]
    huge, infinite, nan = good.copy(), good.copy(), good.copy()
    huge[5, 1], infinite[5, 1], nan[5, 1] = 1e7, np.inf, np.nan
    for tensors, words in (
        ({"coefficients": good.astype(np.float64)}, "float64"),
        ({"coefficients": good.astype(np.float16)}, "float16"),
        ({"coefficients": np.ascontiguousarray(good[:-1])}, "shape"),
        ({"coefficients": np.ascontiguousarray(good.T)}, "shape"),
        ({"coefficients": good, "more": good}, "tensors"),
        ({"weights": good}, "tensors"),
        ({"coefficients": huge}, "1e+06"),
        ({"coefficients": infinite}, "finite"),
        ({"coefficients": nan}, "finite"),
    ):
        replace_weights(router_dir, tensors)
        assert words in refused(router_dir)
    replace_weights(router_dir, {"coefficients": good})
    LinearRouter.load(router_dir)


def test_a_folder_that_cannot_be_written(fitted: FittedRouter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match="cannot be written"):
        fitted.save(tmp_path / "file")


def test_saving_again_replaces_both_files_and_leaves_nothing_else(fitted: FittedRouter, router_dir: Path) -> None:
    fitted.save(router_dir)
    assert sorted(path.name for path in router_dir.iterdir()) == ["router.json", "router.safetensors"]
    LinearRouter.load(router_dir)
