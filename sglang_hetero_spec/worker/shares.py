"""The parts of a batch that are drafted for in one call each, and their requests' numbers on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_hetero_spec.cuda.transfer import kept_on_device


@dataclass(frozen=True)
class Share:
    """The part of a batch that is drafted for in one call, in this step. places: the requests' places in the batch;
    drafters: whose they are, for each, drafters that propose together."""

    places: list[int]
    drafters: list[int]


@dataclass(frozen=True)
class ShareRows:
    """Of the n requests of a share, [n] int64 on the device: places in the batch, rows of req_to_token, lengths and
    roots; seq_lens_cpu: the lengths on the host, where they are known there and the device is another."""

    members: torch.Tensor
    rows: torch.Tensor
    seq_lens: torch.Tensor
    roots: torch.Tensor
    seq_lens_cpu: torch.Tensor | None


def gather_shares(
    shares: Sequence[Share],
    rows: torch.Tensor,
    seq_lens: torch.Tensor,
    roots: torch.Tensor,
    seq_lens_cpu: torch.Tensor | None,
) -> list[ShareRows]:
    """For each share, in two calls for all of them. rows, seq_lens, roots: [b] int64, of the batch."""
    if not shares:
        return []
    places = [place for share in shares for place in share.places]
    sizes = [len(share.places) for share in shares]
    members = kept_on_device(places, rows.device)
    columns: Sequence[torch.Tensor] = (rows, seq_lens, roots)
    hosts: Sequence[torch.Tensor | None] = [None] * len(shares)
    has_host = seq_lens_cpu is not None and rows.device.type != "cpu"
    if places != list(range(len(rows))):
        columns = torch.stack(tuple(columns)).index_select(1, members).unbind(0)
        seq_lens_cpu = seq_lens_cpu[places] if has_host else None
    if has_host:
        hosts = seq_lens_cpu.split(sizes)
    parts = zip(members.split(sizes), *(column.split(sizes) for column in columns), hosts, strict=True)
    return [ShareRows(*part) for part in parts]
