"""Which candidates a pool would take with the target, and in which modes each of them is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sglang_hetero_spec.build.profile.candidates import Candidate, LeftOut
from sglang_hetero_spec.pool import MANIFEST_NAME, Pool, PoolError, write_pool_manifest
from sglang_hetero_spec.pool.kinds import AUTO
from sglang_hetero_spec.vocab.overlap import LOW_SHARE


def check(candidates: Sequence[Candidate], target: str, folder: Path) -> tuple[list[Candidate], list[LeftOut]]:
    """Those that a pool would take with this target, `auto` resolved, and the others: all that can be seen without
    loading a model. A checkpoint with a vocabulary of its own may become two candidates.

    folder: an empty one to write in.
    """
    good: list[Candidate] = []
    left_out: list[LeftOut] = []
    for candidate in candidates:
        try:
            good += _modes(candidate, target, folder)
        except PoolError as error:
            start = f"{folder.resolve() / MANIFEST_NAME}: `drafters[0]."
            left_out.append(LeftOut(candidate, str(error).replace(start, "`")))
    return good, left_out


def _modes(candidate: Candidate, target: str, folder: Path) -> list[Candidate]:
    """The candidate in each mode that may suit it; PoolError where no pool takes it.

    `tli` reads the target's tokens, `slem` the drafter's own: which of them a drafter follows better is a matter of its
    training, so both are measured, `tli` where it could pay.
    """
    if candidate.vocab == AUTO and candidate.takes_shapes:
        with contextlib.suppress(PoolError):
            return _modes(replace(candidate, vocab="shared"), target, folder)
        if not candidate.settings.is_chain:
            return _modes(replace(candidate, vocab="tli"), target, folder)
    drafter = write_pool(folder, {"candidate": candidate}, target).drafter("candidate")
    found = [replace(candidate, vocab=drafter.vocab)]
    if candidate.vocab == AUTO and candidate.takes_shapes and drafter.overlap is not None:
        modes = ["tli", "slem"] if drafter.overlap.share >= LOW_SHARE else ["slem"]
        found = [replace(candidate, vocab=mode) for mode in modes]
    return found


def write_pool(folder: Path, entries: dict[str, Candidate], target: str) -> Pool:
    """A pool of these candidates under these names, and of the bases of adapters; the first is the fallback."""
    bases = {one.path: name for name, one in entries.items() if (one.kind, one.vocab) == ("standalone", "shared")}
    drafters, added = [], []
    for name, candidate in entries.items():
        base = candidate.base
        if base is not None and base.path not in bases:
            bases[base.path] = f"base-of-{name}"[:64]
            added.append(base.entry(bases[base.path]))
        drafters.append(candidate.entry(name, None if base is None else bases[base.path]))
    first = next(iter(entries))
    return write_pool_manifest(folder, drafters=drafters + added, fallback_drafter=first, target=target, hashes=False)
