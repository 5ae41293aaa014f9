"""Training side by side: how a batch is shared out over the processes of torchrun, and how their
gradients become one.

One process alone needs none of it. Source of the arithmetic: the mean over a global batch is the
mean of the means over its shares, each by how many questions it has of all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.task import TaskBatch


@dataclass(frozen=True)
class Share:
    """Which of `world` equal shares of every batch is this process's."""

    rank: int = 0
    world: int = 1

    def of(self, batch: TaskBatch) -> TaskBatch:
        """This process's rows of a batch. Raises InputError where they do not come out even."""
        if self.world == 1:
            return batch
        if len(batch) % self.world:
            raise InputError(
                f"[training] batch={len(batch)}: must be a multiple of the {self.world} processes"
            )
        rows = slice(self.rank, None, self.world)
        return replace(
            batch,
            tokens=tuple(x[rows] for x in batch.tokens),
            targets=tuple(x[rows] for x in batch.targets),
            lengths=tuple(x[rows] for x in batch.lengths),
            difficulty=batch.difficulty[rows],
            rungs=tuple(x[rows] for x in batch.rungs),
            values=tuple(x[rows] for x in batch.values),
        )

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()

    def weights(self, counts: Tensor) -> Tensor:
        """What to multiply this process's mean losses `[n]` with, of `counts` `[n]` questions each,
        so that their mean over the processes is that over all questions."""
        if self.world == 1:
            return torch.ones_like(counts, dtype=torch.float32)
        whole = counts.clone()
        torch.distributed.all_reduce(whole)
        return counts * self.world / whole.clamp(min=1)

    def average(self, model: nn.Module, losses: Tensor) -> list[float]:
        """Make every process's gradients their mean; returns the means of the losses `[n]`."""
        if self.world == 1:
            alone: list[float] = losses.tolist()
            return alone
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        whole = torch.cat([losses, *(g.flatten() for g in grads)])
        torch.distributed.all_reduce(whole)
        whole /= self.world
        sizes = [len(losses), *(g.numel() for g in grads)]
        mean, *parts = whole.split(sizes)
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        means: list[float] = mean.tolist()
        return means


@contextmanager
def joined() -> Iterator[Share]:
    """Join the processes that torchrun started, if it did: gloo on CPUs, NCCL on GPUs."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Share()
        return
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Share(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
