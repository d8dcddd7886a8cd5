"""Where the target lies on this disk."""

from __future__ import annotations

from pathlib import Path


def local_folder(target: str | Path | None, revision: str | None = None) -> Path | None:
    """The folder itself; of a name on a hub, the snapshot that its library has downloaded; else None.

    Downloads nothing. revision: as the server's `--revision`.
    """
    if target is None:
        return None
    try:
        if Path(target).is_dir():
            return Path(target)
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(str(target), "tokenizer.json", revision=revision)
    except (ImportError, OSError, ValueError):  # no such library; a name too long for a path; no name of a repository
        return None
    return Path(found).parent if isinstance(found, str) else None
