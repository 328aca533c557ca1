"""The processes of a run: replicas that share each batch, times the network's two towers.

One process alone is a mesh of one, so that the loop knows no other case. Rank 2r + t holds tower
t of replica r; rank 0 writes the records.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from model.alexnet import AlexNet, AlexNetConfig
from model.towers import Place, Tower, join, refuse_whole, share
from training.config import RecipeError

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others, which may be decoding photographs."""


PEER_LOST = 3
"""The exit code of a process that ended because another was gone."""


class PeerLostError(RuntimeError):
    """Another process of the run is gone."""


@contextmanager
def detect_lost_peers() -> Iterator[None]:
    """Turn what torch raises when another process is gone into LostError."""
    try:
        yield
    except RuntimeError as error:
        told = any(word in str(error) for word in ("peer", "gloo", "NCCL"))
        if is_distributed() and (told or isinstance(error, dist.DistError)):
            raise PeerLostError(str(error).strip().partition("\n")[0][:200]) from error
        raise


@dataclass(frozen=True)
class Mesh:
    """This process's place among those of the run."""

    replicas: int = 1
    towers: int = 1
    replica: int = 0
    tower: int = 0
    devices: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.replica == self.tower == 0

    @property
    def replica_slice(self) -> tuple[int, int]:
        """Which part of each batch is this process's, of how many."""
        return self.replica, self.replicas

    def build_network(self, config: AlexNetConfig) -> AlexNet:
        """Give this process's part of the network, with its initial weights."""
        if self.towers == 1:
            return AlexNet(config)
        assert self.devices is not None
        return Tower(config, Place(self.tower, self.devices["tower"].get_group()))

    def wrap_data_parallel(self, network: AlexNet) -> nn.Module:
        """What to call for a forward pass: gradients are averaged over the replicas after it."""
        if self.replicas == 1:
            return network
        assert self.devices is not None
        group = self.devices["replica"].get_group()
        return DistributedDataParallel(
            network, process_group=group, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def sum_over_replicas(self, *values: float) -> list[float]:
        """Sums over the replicas, in every process, of what each tower knows alike."""
        return [value / self.towers for value in self.all_reduce_sum(*values)]

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sums over all processes, in every process."""
        held = torch.tensor(values, dtype=torch.float64)
        if self.devices is not None:
            dist.all_reduce(held)
        return [float(value) for value in held]

    def gather(self, own: Mapping[str, Tensor], config: AlexNetConfig) -> dict[str, Tensor]:
        """The whole network's tensors on the CPU, from this process's; called by all, rank 0's is
        filled."""
        if self.replica:
            return {}
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}
        if self.towers == 1:
            return held
        parts = [gather_towers(tensor, self) for tensor in held.values()]
        if self.tower:
            return {}
        names = list(held)
        return join(
            [dict(zip(names, part, strict=True)) for part in zip(*parts, strict=True)], config
        )

    def split(self, whole: Mapping[str, Tensor], config: AlexNetConfig) -> dict[str, Tensor]:
        """This process's part of the whole network's tensors."""
        return dict(whole) if self.towers == 1 else share(whole, config, self.tower)


def gather_towers(tensor: Tensor, mesh: Mesh) -> tuple[Tensor, ...]:
    """Both towers' tensors in tower 0 of replica 0; in tower 1, nothing of use."""
    assert mesh.devices is not None
    into = [torch.empty_like(tensor) for _ in range(mesh.towers)] if mesh.tower == 0 else None
    dist.gather(tensor, into, group=mesh.devices["tower"].get_group(), group_dst=0)
    return tuple(into) if into else (tensor, tensor)


def join_mesh(config: AlexNetConfig, towers: int | None, device: torch.device) -> Mesh:
    """Meet the other processes that this one was started with, as torchrun's variables say.

    Raises RecipeError when so many processes are not a number of whole networks, ConfigError
    when the network does not split.
    """
    if not is_distributed():
        return Mesh()
    processes = int(os.environ["WORLD_SIZE"])
    towers = choose_towers(config, towers, processes)
    if processes % towers:
        raise RecipeError(f"{processes} processes do not make whole networks of {towers} towers")
    if towers > 1:
        refuse_whole(config)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    shape = (processes // towers, towers)
    devices = init_device_mesh(device.type, shape, mesh_dim_names=("replica", "tower"))
    replica, tower = divmod(dist.get_rank(), towers)
    return Mesh(*shape, replica, tower, devices)


def rank() -> int:
    """This process's number among all of the run."""
    return int(os.environ.get("RANK", "0"))


def is_distributed() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def choose_towers(config: AlexNetConfig, asked: int | None, processes: int) -> int:
    """How many processes the network is split over: as asked, else two where both can be."""
    if asked is not None:
        return asked
    return 2 if processes % 2 == 0 and can_split(config) else 1


def can_split(config: AlexNetConfig) -> bool:
    """Whether the network falls into two towers."""
    try:
        refuse_whole(config)
    except ValueError:
        return False
    return True


def leave_mesh() -> None:
    """Part from the other processes at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()
