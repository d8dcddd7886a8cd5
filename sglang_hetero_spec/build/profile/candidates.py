"""The drafters to measure: checkpoints, folders of them, pools; and which of them cannot be tried at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.made_for import vocab_of
from sglang_hetero_spec.build.profile.records import NO_SETTINGS, NONE, ProfileError, Settings
from sglang_hetero_spec.build.sorted_file import read_exits
from sglang_hetero_spec.pool import MANIFEST_NAME, PoolError
from sglang_hetero_spec.pool.adapter import CONFIG_FILE, named_base, read_adapter_config
from sglang_hetero_spec.pool.entries.ngram import CORPUS_NAME
from sglang_hetero_spec.pool.kinds import MAX_NUM_DRAFT_TOKENS, MAX_NUM_STEPS, MAX_TOPK, WITHOUT_FILES, max_tree_nodes
from sglang_hetero_spec.pool.parse import parse_manifest
from sglang_hetero_spec.pool.schema import Drafter
from sglang_hetero_spec.pool.strict_json import read_text
from sglang_hetero_spec.pool.tree_shape import tree_shape

CONFIG_NAME = "config.json"
# Keys of an entry that a candidate has fields for, and those that `write_pool` does not need.
_COMMON = {"name", "kind", "path", "vocab", "external", "weights_sha256", "tokenizer_sha256", "base", *Settings._fields}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Candidate:
    """One drafter with one tree shape. path: of its files, None for a drafter without any. vocab: as in a pool.json;
    what `auto` stands for is found by `checked.check`. takes_shapes: whether `settings` were asked for of any
    checkpoint. extra: the keys of its kind alone, as in a pool.json. base: what an adapter belongs to.
    """

    drafter: str
    settings: Settings
    path: Path | None
    kind: str = "standalone"
    vocab: str = "shared"
    takes_shapes: bool = False
    extra: tuple[tuple[str, Any], ...] = ()
    base: Candidate | None = None

    def __str__(self) -> str:
        return self.drafter if self.kind == NONE else f"{self.drafter} ({self.settings})"

    def entry(self, name: str, base: str | None = None) -> dict[str, Any]:
        """Its entry in a pool.json. base: the name of its base's."""
        if self.kind == NONE:
            return {"name": name, "kind": NONE}
        files = {} if self.path is None else {"path": str(self.path), "external": True}
        common = {"name": name, "kind": self.kind, **files, "vocab": self.vocab, **self.settings._asdict()}
        return {**common, **dict(self.extra), **({} if base is None else {"base": base})}


NOBODY = Candidate(NONE, NO_SETTINGS, None, kind="none")


@dataclass(frozen=True)
class LeftOut:
    """A candidate that is not measured, and why: one sentence."""

    candidate: Candidate
    reason: str


def parse_shapes(
    num_steps: Sequence[int], topk: Sequence[int], num_draft_tokens: Sequence[int] | None
) -> tuple[Settings, ...]:
    """The tree shapes of plain checkpoints: the lists side by side, a list of one for all.

    num_draft_tokens None: chains need none. ProfileError for lists that do not fit or a tree that cannot be.
    """
    length = max(len(num_steps), len(topk), len(num_draft_tokens or ()))
    lists = {"--num-steps": num_steps, "--topk": topk, "--num-draft-tokens": num_draft_tokens or (None,)}
    for flag, values in lists.items():
        if len(values) not in (1, length):
            raise ProfileError(f"{flag} has {len(values)} numbers where another has {length}; give one, or as many.")
    columns = [list(values) * (length if len(values) == 1 else 1) for values in lists.values()]
    shapes = (_shape(*row) for row in zip(*columns, strict=True))  # type: ignore[arg-type]
    return tuple(dict.fromkeys(shapes))


def _shape(num_steps: int, topk: int, num_draft_tokens: int | None) -> Settings:
    if not 1 <= num_steps <= MAX_NUM_STEPS:
        raise ProfileError(f"--num-steps {num_steps} cannot be; give a whole number from 1 to {MAX_NUM_STEPS}.")
    if not 1 <= topk <= MAX_TOPK:
        raise ProfileError(f"--topk {topk} cannot be; give a whole number from 1 to {MAX_TOPK}.")
    if topk == 1:
        if num_draft_tokens not in (None, num_steps + 1):
            raise ProfileError(
                f"--num-draft-tokens {num_draft_tokens} does not go with a chain of {num_steps} steps, which has"
                f" {num_steps + 1}; leave it out."
            )
        return Settings(num_steps, 1, num_steps + 1)
    highest = min(MAX_NUM_DRAFT_TOKENS, max_tree_nodes(num_steps, topk))
    if num_draft_tokens is None or not 2 <= num_draft_tokens <= highest:
        raise ProfileError(
            f"--num-draft-tokens is {num_draft_tokens or 'missing'}; a tree of {num_steps} steps and topk {topk} needs"
            f" a whole number from 2 to {highest}."
        )
    return Settings(num_steps, topk, num_draft_tokens)


def find_candidates(given: Iterable[str], shapes: Sequence[Settings]) -> tuple[Candidate, ...]:
    """What the arguments mean: each a checkpoint or corpus (NAME=FOLDER or FOLDER), a folder of checkpoints, or a pool.

    A pool's drafters keep their names and shapes, others take `shapes`. `none` is left out: it is always measured.
    ProfileError if an argument is none of these, or one name stands for two drafters.
    """
    found: dict[tuple[str, Settings], Candidate] = {}
    sources: dict[str, Candidate] = {}
    for argument in given:
        for candidate in _of_argument(argument, shapes):
            other = sources.setdefault(candidate.drafter, candidate)
            if (other.path, other.kind, other.extra) != (candidate.path, candidate.kind, candidate.extra):
                raise ProfileError(_two_of_one_name(other, candidate))
            found[candidate.drafter, candidate.settings] = candidate
    if not found:
        raise ProfileError(f"--candidates has no drafter but `{NONE}`; give a checkpoint, a folder of them or a pool.")
    return tuple(found.values())


def _two_of_one_name(first: Candidate, second: Candidate) -> str:
    if first.path is None or second.path is None or first.path == second.path:
        return f"`{first.drafter}` is two drafters of the pools of --candidates; rename one of them there."
    return f"`{first.drafter}` is both {first.path} and {second.path}; name one of them, as in NAME={second.path}."


def _of_argument(argument: str, shapes: Sequence[Settings]) -> list[Candidate]:
    name, folder = _split(argument)
    if name is None and (folder / MANIFEST_NAME).is_file():
        return _of_pool(folder)
    if (folder / CONFIG_NAME).is_file():
        return _of_checkpoint(name or _named(folder), folder, shapes)
    if (folder / CONFIG_FILE).is_file():
        base = _base_of(folder)
        return [
            Candidate(name or _named(folder), shape, folder, "lora", base=replace(base, settings=shape))
            for shape in shapes
        ]
    if (folder / CORPUS_NAME).is_file():
        return [Candidate(name or _named(folder), shape, folder, kind="ngram") for shape in shapes]
    children = sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))
    if name is None and children:
        return [found for child in children for found in _of_checkpoint(_named(child), child, shapes)]
    raise ProfileError(
        f"{folder} is no pool ({MANIFEST_NAME}), no checkpoint ({CONFIG_NAME}), no adapter ({CONFIG_FILE}), no corpus"
        f" ({CORPUS_NAME}) and no folder of checkpoints; correct --candidates."
    )


def _base_of(folder: Path) -> Candidate:
    """What the adapter in `folder` says that it belongs to."""
    try:
        config = read_adapter_config(folder, "--candidates")
    except PoolError as error:
        raise ProfileError(str(error)) from None
    base = named_base(config, folder)
    if base is None or not (base / CONFIG_NAME).is_file():
        raise ProfileError(
            f"{folder / CONFIG_FILE}: `base_model_name_or_path` is {config.base}, which is no folder of a checkpoint;"
            " put the adapter and its base into a pool, and give that."
        )
    return Candidate(_named(base), NO_SETTINGS, base)


def _split(argument: str) -> tuple[str | None, Path]:
    name, equals, folder = argument.partition("=")
    if equals and _NAME.fullmatch(name) and not Path(argument).exists():
        return name, Path(folder).resolve()
    return None, Path(argument).resolve()


def _named(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("._-")
    return name[:64] or "drafter"


def _of_checkpoint(name: str, folder: Path, shapes: Sequence[Settings]) -> list[Candidate]:
    if name == NONE:
        raise ProfileError(f"`{NONE}` means no drafter, so {folder} cannot have that name; write NAME={folder}.")
    exits = read_exits(folder)
    if exits is not None:
        return [_at_exit(name, folder, shape, layers) for shape in shapes if shape.is_chain for layers in exits]
    vocab = vocab_of(folder)
    return [Candidate(name, shape, folder, vocab=vocab, takes_shapes=True) for shape in shapes]


def _at_exit(name: str, folder: Path, shape: Settings, layers: int) -> Candidate:
    """A sorted drafter that is always left at one exit; how to leave it by confidence depends on what these cost."""
    extra = (("exits", (layers,)),)
    return Candidate(f"{name}-exit{layers}"[-64:], shape, folder, kind="sorted", takes_shapes=True, extra=extra)


def _of_pool(root: Path) -> list[Candidate]:
    """All drafters but `none`, also those whose files are bad: `check` finds that out one by one."""
    where = root / MANIFEST_NAME
    try:
        drafters = parse_manifest(read_text(where), where).drafters
        named = {drafter.name: drafter for drafter in drafters}
        return [
            _of_entry(root, drafter, f"{where}: `drafters[{index}]", named)
            for index, drafter in enumerate(drafters)
            if drafter.kind != "none"
        ]
    except PoolError as error:
        raise ProfileError(str(error)) from None


def _of_entry(root: Path, drafter: Drafter, where: str, named: Mapping[str, Drafter]) -> Candidate:
    if drafter.name == NONE:
        raise ProfileError(f"{where}` is named `{NONE}` but drafts; correct the pool.")
    if drafter.path is None and drafter.kind not in WITHOUT_FILES:
        raise ProfileError(f"{where}` has no `path`; correct the pool.")
    base = None
    if drafter.kind == "lora":
        if drafter.base not in named or named[drafter.base].kind != "standalone":
            raise ProfileError(
                f"{where}.base` is {drafter.base}, no `standalone` drafter of the pool; correct the pool."
            )
        base = _of_entry(root, named[drafter.base], where, named)
    has_shape = base is None or drafter.num_steps is not None
    shape = Settings(*tree_shape(drafter, where)) if has_shape else base.settings
    path = None if drafter.path is None else (root / drafter.path).resolve()
    return Candidate(drafter.name, shape, path, drafter.kind, drafter.vocab, extra=_extra(drafter), base=base)


def _extra(drafter: Drafter) -> tuple[tuple[str, Any], ...]:
    """What only some kinds have, hashable: lists are tuples. Hashes are left out, a drafter may have moved."""
    given = drafter.model_dump(exclude_defaults=True)
    return tuple((key, value) for key, value in given.items() if key not in _COMMON)
