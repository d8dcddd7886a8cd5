"""Temporary work trees of a repository: of a commit, or of the work that is not committed yet."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UNCOMMITTED = "."


class CompareError(Exception):
    """One sentence for the user. exit_code: 2 where the input was wrong, 1 where something failed."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Tree:
    """name: as the user gave it; title: with the commit's number; path: its files."""

    name: str
    title: str
    path: Path


def git(repository: Path, *args: str, **environment: str) -> str:
    """What git prints; CompareError with its last line where it fails."""
    run = subprocess.run(
        ["git", "-C", str(repository), *args], capture_output=True, text=True, env={**os.environ, **environment}
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise CompareError(f"git {args[0]} failed: {last.rstrip('.')}.", 1)
    return run.stdout.strip()


def root_of(folder: Path) -> Path:
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel"))
    except CompareError:
        raise CompareError(f"{folder} is in no git repository; run this in a checkout.") from None


def commit_of(repository: Path, name: str) -> str:
    """The full number of the commit that `name` stands for; of what is not committed, one made for this."""
    if name == UNCOMMITTED:
        return _snapshot(repository)
    if name.startswith("-"):
        raise CompareError(f"{name!r} is no commit of {repository}; give a hash, a branch, a tag or '.'.")
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except CompareError:
        raise CompareError(f"{name!r} is no commit of {repository}; give a hash, a branch, a tag or '.'.") from None


def is_dirty(repository: Path) -> bool:
    return bool(git(repository, "status", "--porcelain"))


def _snapshot(repository: Path) -> str:
    """A commit of all files but ignored ones, on no branch; neither the index nor the files change."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        # With the real index's stat data git need not read every file again.
        real = repository / git(repository, "rev-parse", "--git-path", "index")
        if real.is_file():
            shutil.copyfile(real, index)
        git(repository, "add", "--all", GIT_INDEX_FILE=str(index))
        tree = git(repository, "write-tree", GIT_INDEX_FILE=str(index))
    who = {f"GIT_{role}_{field}": "compare" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    return git(repository, "commit-tree", tree, "-m", "uncommitted work, for benchmarks/compare", **who)


@contextmanager
def worktrees(repository: Path, names: tuple[str, str]) -> Iterator[tuple[Tree, Tree]]:
    """Both checked out side by side; removed at the end, however it comes."""
    commits = [commit_of(repository, name) for name in names]
    folder = Path(tempfile.mkdtemp(prefix="compare-"))
    trees = []
    try:
        for letter, name, commit in zip("AB", names, commits, strict=True):
            path = folder / letter
            git(repository, "worktree", "add", "--detach", "--quiet", str(path), commit)
            title = "uncommitted work" if name == UNCOMMITTED else f"{name} ({commit[:9]})"
            trees.append(Tree(name, title, path))
        yield trees[0], trees[1]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        git(repository, "worktree", "prune")
