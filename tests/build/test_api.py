"""What a Python program gets: `from sglang_hetero_spec import Pool, build`."""

from __future__ import annotations

import pytest


def test_the_names_of_the_docstring_are_there() -> None:
    from sglang_hetero_spec import Pool, build

    assert Pool.__name__ == "Pool"
    for name in build.__all__:
        assert callable(getattr(build, name))
        assert name in (build.__doc__ or "") or name == "Recipe"


def test_other_names_are_not() -> None:
    import sglang_hetero_spec

    with pytest.raises(AttributeError, match="nothing"):
        _ = sglang_hetero_spec.nothing
    with pytest.raises(AttributeError, match="nothing"):
        _ = sglang_hetero_spec.build.nothing
