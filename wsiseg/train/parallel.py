"""Data-parallel training under ``torchrun``: same batches and mathematics as in one process.

Every process draws the same batches and works on its part of each; sums over the parts make losses,
gradients, batch statistics and memory bank those of the whole batch. Only rounding differs.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, TrainingError
from wsiseg.model.device import open_device
from wsiseg.model.losses import MemoryBank

__all__ = ["Group", "SharedBank", "check_parts", "leads", "open_group", "share_batch_norms"]

_TIMEOUT = timedelta(days=30)
"""How long processes wait while the first validates and writes; if it dies, they end at once."""


class Group:
    """The processes that train one model; a single one unless `torchrun` started more."""

    def __init__(
        self, rank: int = 0, count: int = 1, patient: dist.ProcessGroup | None = None
    ) -> None:
        self.rank, self.count = rank, count
        self._patient = patient

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch; the parts in order of rank are the batch."""
        return batch.tensor_split(self.count)[self.rank]

    def add(self, tensor: Tensor) -> Tensor:
        """Sum `tensor` over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self, device: torch.device) -> None:
        """Wait until all processes are here."""
        self.add(torch.zeros(1, device=device))

    def lead(self, work: Callable[[], None]) -> None:
        """Do `work` in the first process, while the others wait, however long it takes.

        Raises
        ------
        TrainingError
            In the others, if it failed in the first, where its own error is raised.
        """
        if self.count == 1:
            work()
            return
        failure: BaseException | None = None
        if self.leads:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # raised below, once the others know
                failure = error
        failed = torch.tensor([failure is not None], dtype=torch.uint8)
        dist.broadcast(failed, 0, group=self._patient)
        if failure is not None:
            raise failure
        if failed.item():
            raise TrainingError("the first process failed while this one waited; it says why")

    def share(self, rows: int, device: torch.device) -> float:
        """Return the share of all processes' rows that these are; 0 if no process has any."""
        if self.count == 1:
            return float(rows > 0)
        total = self.add(torch.tensor(float(rows), device=device)).item()
        return rows / total if total else 0.0

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum of all processes', in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = self.add(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate all processes' `rows` ``(n, ...)``, n each its own, in order of rank."""
        if self.count == 1:
            return rows
        counts = torch.zeros(self.count, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        sizes = self.add(counts).tolist()
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def leads() -> bool:
    """Whether this process may print and write: all but the helpers that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def open_group(device: str) -> tuple[Group, torch.device]:
    """Return the processes of this run, and the device of this one.

    Under ``torchrun``, ``auto`` and ``cuda`` mean one CUDA device per process (NCCL); without CUDA,
    or with ``cpu``, processes share the work of the CPU (gloo).

    Raises
    ------
    ConfigError
        If the device is not available, or all processes were given the same CUDA device.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Group(), open_device(device)
    if device.startswith("cuda:"):
        raise ConfigError(f"device {device!r} would be shared by {count} processes; set it to cuda")
    place = open_device(device)
    if place.type == "cuda":
        place = open_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        # Not sooner: a script may train one model after the other.
        atexit.register(dist.destroy_process_group)
    patient: Any = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return Group(dist.get_rank(), dist.get_world_size(), patient), place


def check_parts(patches: int, config: TrainConfig, group: Group) -> None:
    """Check that every process has a patch of every batch, even of the last of an epoch.

    Raises
    ------
    ConfigError
        If a batch is smaller than the number of processes.
    """
    smallest = min(patches % config.batch_size or config.batch_size, patches)
    if smallest < group.count:
        raise ConfigError(
            f"batch_size {config.batch_size} leaves {smallest} of {patches} patches for the last "
            f"batch, fewer than {group.count} processes; choose another batch_size"
        )


class SharedBank(MemoryBank):
    """A memory bank that takes in the backgrounds of all processes, in order of rank."""

    def __init__(
        self, size: int, dim: int, generator: torch.Generator | None, group: Group
    ) -> None:
        super().__init__(size, dim, generator)
        self._group = group

    def push(self, rows: Tensor) -> None:
        """Write all processes' `rows` over the oldest; every process calls this at once."""
        super().push(self._group.gather(rows.detach().to(self.queue)))


def share_batch_norms(module: nn.Module, group: Group) -> None:
    """Make the batch norms of `module` use the statistics of all processes' rows."""
    if group.count == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = _SharedBatchNorm(child.num_features).to(child.running_mean)
            shared.load_state_dict(child.state_dict())
            shared.group = group
            setattr(module, name, shared)
        else:
            share_batch_norms(child, group)


class _SharedBatchNorm(nn.BatchNorm2d):
    """torch's own `SyncBatchNorm` works on CUDA only."""

    group: Group

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        maps = input.float()
        count = self.group.add(torch.tensor(float(maps[:, 0].numel()), device=maps.device))
        mean = _Sum.apply(maps.sum((0, 2, 3)), self.group) / count
        centred = maps - mean[:, None, None]
        var = _Sum.apply(centred.square().sum((0, 2, 3)), self.group) / count
        self._track(mean.detach(), var.detach() * count / (count - 1))
        scale = self.weight * (var + self.eps).rsqrt()
        out: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)
        self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient is summed too, as all their losses depend on it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.add(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total: Tensor = ctx.group.add(gradients[0].contiguous().clone())
        return total, None
