"""The processes of a run: replicas that share each batch, times the network's two towers.

A single process is a mesh of one, so that the loop has no special case. With two towers, rank
2r + t holds tower t of replica r. Rank 0 prints and writes all files.
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

from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.network.towers import (
    Tower,
    TowerRank,
    check_splittable,
    merge_state_dicts,
    split_state_dict,
)
from storage.parallel import is_distributed
from training.recipe.config import RecipeError

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others, which may be decoding photographs."""
EXIT_PEER_LOST = 3
"""Exit code of a process that ended because another one did."""


class PeerLostError(RuntimeError):
    """Another process of the run is gone; the message is what torch said."""


@contextmanager
def detect_lost_peers() -> Iterator[None]:
    """Turn the errors that torch raises when another process is gone into PeerLostError."""
    try:
        yield
    except RuntimeError as error:
        names_peer = any(word in str(error) for word in ("peer", "gloo", "NCCL"))
        if is_distributed() and (names_peer or isinstance(error, dist.DistError)):
            raise PeerLostError(str(error).strip().partition("\n")[0][:200]) from error
        raise


@dataclass(frozen=True)
class Mesh:
    """This process's place among replicas × towers, and its communication with the others."""

    replicas: int = 1
    towers: int = 1
    replica: int = 0
    tower: int = 0
    devices: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the process that prints and writes."""
        return self.replica == self.tower == 0

    @property
    def replica_slice(self) -> tuple[int, int]:
        """Which slice of each batch belongs to this process: (replica, number of replicas)."""
        return self.replica, self.replicas

    def build_network(self, config: AlexNetConfig) -> AlexNet:
        """Build this process's part of the network, with its initial weights."""
        if self.towers == 1:
            return AlexNet(config)
        assert self.devices is not None
        return Tower(config, TowerRank(self.tower, self.devices["tower"].get_group()))

    def wrap_data_parallel(self, network: AlexNet) -> nn.Module:
        """Wrap the network so that a backward pass averages gradients over the replicas."""
        if self.replicas == 1:
            return network
        assert self.devices is not None
        group = self.devices["replica"].get_group()
        return DistributedDataParallel(
            network, process_group=group, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def sum_over_replicas(self, *values: float) -> list[float]:
        """Sum values that are the same in both towers of a replica; every process gets the sums."""
        return [value / self.towers for value in self.all_reduce_sum(*values)]

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sum values over all processes; every process gets the sums."""
        sums = torch.tensor(values, dtype=torch.float64)
        if self.devices is not None:
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def gather(self, tensors: Mapping[str, Tensor], config: AlexNetConfig) -> dict[str, Tensor]:
        """Gather the whole network's tensors from this process's part, on the CPU of rank 0.

        tensors: weights, or values with their names and shapes, such as velocities. Call it in
        all processes; all but rank 0 get an empty dict.
        """
        if self.replica:
            return {}
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if self.towers == 1:
            return own
        parts = [gather_towers(tensor, self) for tensor in own.values()]
        if self.tower:
            return {}
        names = list(own)
        return merge_state_dicts(
            [dict(zip(names, part, strict=True)) for part in zip(*parts, strict=True)], config
        )

    def split(self, tensors: Mapping[str, Tensor], config: AlexNetConfig) -> dict[str, Tensor]:
        """Return this process's part of the whole network's tensors: the inverse of `gather`."""
        return dict(tensors) if self.towers == 1 else split_state_dict(tensors, config, self.tower)


def gather_towers(tensor: Tensor, mesh: Mesh) -> tuple[Tensor, ...]:
    """Return both towers' tensors in tower 0; what tower 1 gets is not used."""
    assert mesh.devices is not None
    into = [torch.empty_like(tensor) for _ in range(mesh.towers)] if mesh.tower == 0 else None
    dist.gather(tensor, into, group=mesh.devices["tower"].get_group(), group_dst=0)
    return tuple(into) if into else (tensor, tensor)


def join_mesh(config: AlexNetConfig, towers: int | None, device: torch.device) -> Mesh:
    """Connect to the other processes of the run, as torchrun's environment variables name them.

    towers: how many processes to split the network over; None: two if possible.

    Raises RecipeError if the processes do not make whole networks, and ConfigError if the network
    cannot be split.
    """
    if not is_distributed():
        return Mesh()
    processes = int(os.environ["WORLD_SIZE"])
    towers = choose_towers(config, towers, processes)
    if processes % towers:
        raise RecipeError(f"{processes} processes do not make whole networks of {towers} towers")
    if towers > 1:
        check_splittable(config)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    shape = (processes // towers, towers)
    devices = init_device_mesh(device.type, shape, mesh_dim_names=("replica", "tower"))
    replica, tower = divmod(dist.get_rank(), towers)
    return Mesh(*shape, replica, tower, devices)


def choose_towers(config: AlexNetConfig, requested: int | None, processes: int) -> int:
    """Return how many processes to split the network over: as requested, else two if possible."""
    if requested is not None:
        return requested
    return 2 if processes % 2 == 0 and can_split(config) else 1


def can_split(config: AlexNetConfig) -> bool:
    """Whether the network can be split into two towers."""
    try:
        check_splittable(config)
    except ValueError:
        return False
    return True


def leave_mesh() -> None:
    """Disconnect from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
