"""Who a process is under torchrun and mpirun, and BatchNorm over processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from densepath.errors import DataError, UsageError
from densepath.training.distributed import ALONE, Ranks, find_address, find_ranks, pick_device
from densepath.training.sync_bn import SyncBatchNorm, synchronise

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


@pytest.mark.parametrize("environment", [TORCHRUN, OPEN_MPI, MPICH])
def test_every_launcher_tells_rank_and_world(environment):
    assert find_ranks(environment) == Ranks(3, 8, 1, 2)


def test_without_a_launcher_there_is_one_process_that_leads():
    assert find_ranks({}) == Ranks(0, 1, 0, 1)
    assert find_ranks({}).leads


def test_a_rank_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="WORLD_SIZE"):
        find_ranks({"RANK": "0", "WORLD_SIZE": "two"})


def test_the_address_given_is_taken():
    environment = {**OPEN_MPI, "MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
    assert find_address(environment) == ("node1", "1234")
    assert find_address({"MASTER_ADDR": "node1"}) == ("node1", "29500")


def test_several_machines_need_an_address():
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        find_address(OPEN_MPI)


def test_jobs_of_one_machine_get_ports_of_their_own():
    here = {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}
    ports = [find_address({**here, "PMIX_NAMESPACE": f"job-{n}"}) for n in range(5)]
    assert len(set(ports)) == 5
    assert {host for host, _ in ports} == {"127.0.0.1"}
    assert all(20000 <= int(port) < 32000 for _, port in ports)


def test_alone_a_sum_is_what_was_given_and_a_stack_has_one_row():
    tensor = torch.arange(3.0)
    assert ALONE.sum(tensor) is tensor
    assert ALONE.stack(tensor).tolist() == [[0.0, 1.0, 2.0]]


def test_unknown_devices_are_refused():
    for name in ("gpu", "meta"):
        with pytest.raises(UsageError, match="cpu"):
            pick_device(name, Ranks())


def test_an_error_inside_together_is_raised_in_a_world_of_one():
    with pytest.raises(DataError, match="broken"), Ranks().together(torch.device("cpu")):
        raise DataError("broken")


def test_numbers_given_together_come_back():
    with Ranks().together(torch.device("cpu")) as exchange:
        exchange.value = 7
    assert exchange.values == [7]


@pytest.fixture
def world_of_one(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("world_of_one")
def test_sync_bn_computes_what_batch_norm_does():
    """In float64, so that the bound is arithmetic's and not the summation order's."""
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(5)).double()
    torch.nn.init.normal_(plain[0].weight)
    synced = torch.nn.Sequential(torch.nn.BatchNorm2d(5)).double()
    synced.load_state_dict(plain.state_dict())
    synchronise(synced, torch.device("cpu"))
    assert type(synced[0]) is SyncBatchNorm
    images = torch.randn(4, 5, 6, 7, dtype=torch.float64) * 3 + 2
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    weights = torch.randn_like(images)
    for model, x in zip((plain, synced), inputs, strict=True):
        (model(x) * weights).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(synced[0].weight.grad, plain[0].weight.grad)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], tensor, msg=name)
    torch.testing.assert_close(synced.eval()(images), plain.eval()(images))
