"""Beside a profile: the pool entries of drafters that are more than a checkpoint and a shape, for `assemble`.

`<profile>.entries.json`: name -> {path, kind, and the keys of its kind}; only where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.profile.candidates import Candidate
from sglang_hetero_spec.build.profile.records import ProfileError
from sglang_hetero_spec.files import write_json


def write_served(profile: Path, candidates: Sequence[Candidate]) -> None:
    entries = {
        candidate.drafter: {"path": str(candidate.path), "kind": candidate.kind, **dict(candidate.extra)}
        for candidate in candidates
        if candidate.takes_shapes and candidate.extra
    }
    path = _path(profile)
    if entries:
        write_json(path, entries, ProfileError)
    else:
        path.unlink(missing_ok=True)


def read_served(profile: Path) -> Mapping[str, Mapping[str, Any]]:
    path = _path(profile)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError):
        raise ProfileError(f"{path} is damaged; profile again.") from None


def _path(profile: Path) -> Path:
    return profile.with_name(f"{profile.name}.entries.json")
