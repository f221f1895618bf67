"""Many processes, one training: who am I, and what do all processes together say.

`torchrun` and `mpirun` both start the same command several times; each process learns its rank
from the environment. A single process takes the same way with a world of one, in which every
exchange is a plain return.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from densepath.errors import DensepathError, TrainingError, UsageError

# rank, world size, local rank, local size: torchrun; Open MPI; MPICH and Intel MPI (Hydra).
_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
TIMEOUT = timedelta(minutes=30)


class PeerError(TrainingError):
    """Another process of this training failed; that process has said why.

    `exit_code` is that of the mistake where every process made the same one.
    """

    def __init__(self, message: str, exit_code: int = TrainingError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Exchange:
    """The number that this process gives, and afterwards those of all processes by rank."""

    value: int = 0
    values: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    Attributes:
        rank: its number; rank 0 writes the run folder and speaks.
        world_size: how many there are.
        local_rank: its number on this machine, which picks its GPU.
        local_size: how many there are on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, which now holds the sum over all processes."""
        if self.world_size > 1:
            with _peers():
                dist.all_reduce(tensor)
        return tensor

    def stack(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes by rank: [processes, ...], each process's of one shape."""
        if self.world_size == 1:
            return tensor[None]
        each = tensor.new_empty((self.world_size, *tensor.shape))
        with _peers():
            dist.all_gather(list(each), tensor)
        return each

    def gather(self, texts: list[str]) -> list[str]:
        """The texts of all processes, by rank."""
        if self.world_size == 1:
            return list(texts)
        each: list[list[str]] = [[] for _ in range(self.world_size)]
        with _peers():
            dist.all_gather_object(each, texts)
        return [text for own in each for text in own]

    def take_leaders(self, tensors: list[Tensor]) -> None:
        """Fill the tensors with what the leading process has in them."""
        if self.world_size > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    @contextmanager
    def together(self, device: torch.device) -> Iterator[Exchange]:
        """A body that all processes leave, or none; each may leave a number for the others.

        Raises:
            PeerError: the body failed in another process, and not in this one or later.
        """
        exchange, error = Exchange(), None
        try:
            yield exchange
        except DensepathError as caught:
            error = caught
        table = torch.zeros(2, self.world_size, dtype=torch.float64, device=device)
        table[0, self.rank] = exchange.value
        table[1, self.rank] = error is not None
        numbers, failed = self.sum(table).tolist()
        if any(failed) and failed.index(1.0) != self.rank:
            raise PeerError("another process of this training failed; its message says why.")
        if error is not None:
            raise error
        exchange.values = [int(number) for number in numbers]


ALONE = Ranks()


def find_ranks(environment: Mapping[str, str]) -> Ranks:
    """This process's place, from the variables that torchrun or mpirun set; else a world of one.

    Raises:
        UsageError: the variables hold no numbers.
    """
    for launcher, (rank, size, local_rank, local_size) in _LAUNCHERS.items():
        if rank in environment and size in environment:
            try:
                return Ranks(
                    int(environment[rank]),
                    int(environment[size]),
                    int(environment.get(local_rank, environment[rank])),
                    int(environment.get(local_size, environment[size])),
                )
            except ValueError as error:
                raise UsageError(
                    f"{launcher}'s {rank} or {size} is not a number: {error}"
                ) from error
    return Ranks()


def find_address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Host and port where rank 0 listens: MASTER_ADDR and MASTER_PORT, or this machine's.

    mpirun sets neither. When all its processes are on this machine, the port comes from the
    job, so that two trainings on one machine do not meet.

    Raises:
        UsageError: several machines and no MASTER_ADDR.
    """
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    for _, size, _, local_size in _LAUNCHERS.values():
        if size in environment and host is None:
            if environment.get(local_size, environment[size]) != environment[size]:
                raise UsageError(
                    "this training runs on several machines, and MASTER_ADDR is not set. Set it "
                    "to the name of rank 0's machine: mpirun -x MASTER_ADDR=NAME ... (Open MPI) "
                    "or mpirun -genv MASTER_ADDR NAME ... (MPICH)."
                )
            job = environment.get("PMIX_NAMESPACE", str(os.getppid()))
            port = port or str(20000 + zlib.crc32(job.encode()) % 12000)
    return host or "127.0.0.1", port or "29500"


def pick_device(name: str, ranks: Ranks) -> torch.device:
    """The device of this process: `auto` takes a GPU when there is one.

    Raises:
        UsageError: no such device, or CUDA asked for where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}. Choices: auto, cpu, cuda, cuda:N.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("device is cuda, but this PyTorch sees no GPU. Choose --device cpu.")
        if device.index is None:
            device = torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UsageError(f"device is {name!r}; training runs on cpu and cuda.")
    return device


@contextmanager
def said_by_leader(ranks: Ranks) -> Iterator[None]:
    """A context in which the leading process says a mistake of the user that every process finds.

    Raises:
        UsageError: the mistake, in the leading process.
        PeerError: in the others, with its exit code.
    """
    try:
        yield
    except UsageError as error:
        if ranks.leads:
            raise
        raise PeerError("the leading process says what is wrong.", error.exit_code) from error


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """A context in which processes can exchange tensors; a world of one has nothing to set up.

    Raises:
        PeerError: the others did not come, or left early.
    """
    if ranks.world_size == 1 or dist.is_initialized():
        yield
        return
    host, port = find_address(os.environ)
    with _peers():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{host}:{port}",
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=TIMEOUT,
        )
    try:
        with _peers():
            yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """A context in which a lost connection becomes a PeerError.

    Raises:
        PeerError: another process ended, or did not answer in time.
    """
    try:
        yield
    except dist.DistError as error:
        raise PeerError(f"lost another process of this training: {error}") from error
    except RuntimeError as error:
        if "gloo" in str(error) or "Connection closed" in str(error):
            raise PeerError(
                "another process of this training ended early; its message says why."
            ) from error
        raise
