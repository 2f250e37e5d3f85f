"""One training in several processes, one per GPU or group of cores, started by `torchrun`.

All processes hold the same weights and take the same steps: each has a share of every batch, and
gradients are averaged over all. A batch is drawn as if there were one process, so their number changes
nothing but rounding, and the noise of quantisation, which is each one's own. Without `torchrun` there
is one process, and all of this does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, if `torchrun` started this one, and part from them at the end."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # The first process packs the pictures while the others wait.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=1))
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; the first, 0, is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def share() -> slice:
    """Which examples of a batch are this process's."""
    return slice(rank(), None, count())


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()


def agreed(value: T) -> T:
    """The first process's value, in all of them."""
    values = [value]
    if count() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gathered(values: Tensor) -> Tensor:
    """Values of all examples of a batch, in its order, from those of this share: B / count -> B."""
    if count() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(count())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts, 1).flatten()


def average_gradients(model: nn.Module) -> None:
    """Make each gradient the mean over all processes, in one message."""
    if count() == 1:
        return
    gradients = []
    for parameter in model.parameters():
        if parameter.grad is None:  # unused by this share, maybe not by another
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    message = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(message)
    message /= count()
    for gradient, mean in zip(gradients, message.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view(gradient.shape))
