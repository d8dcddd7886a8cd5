"""A pool with every check that needs no model: files by `load_pool`, the router by its own loader."""

from __future__ import annotations

from sglang_hetero_spec.pool import Pool, PoolError, load_pool


def checked_pool(path: str, target: str | None = None) -> Pool:
    """Load the pool and its router; PoolError in one sentence."""
    pool = load_pool(path, target=target)
    if pool.router is not None:
        from sglang_hetero_spec.router.errors import RouterError
        from sglang_hetero_spec.router.predict import LinearRouter

        try:
            LinearRouter.load(pool.router.path)
        except RouterError as error:
            raise PoolError(str(error)) from None
    return pool
