"""Sparse layers on two processes learn what one process learns from all their images.

The processes run this file as a script.
"""

import contextlib
import datetime
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparseguard.sparse import SparseCode2d, SparseCodeDense

UPDATES, BATCHES, EACH = 4, 2, 3
"""Updates, batches gathered for each, images of a process in each."""

pytestmark = pytest.mark.slow  # processes are started


class Net(nn.Module):
    def __init__(self, seed, backprop):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        settings = {"generator": generator, "lambd": 0.2, "hebbian": True, "backprop": backprop, "rate": 0.5}
        self.code = SparseCode2d(1, 4, 3, **settings)
        self.dense = SparseCodeDense(4, 10, **settings)
        self.out = nn.Linear(10, 2)
        with torch.no_grad():
            self.out.weight.copy_(torch.randn(2, 10, generator=generator))
            self.out.bias.zero_()
        self.double()

    def forward(self, images):
        return self.out(self.dense(self.code(images).mean((2, 3))))


def data(update, batch, rank):
    """Return the images and labels that a process sees; in every other update their size differs between processes."""
    generator = torch.Generator().manual_seed(1000 * update + 10 * batch + rank)
    size = (5, 7) if rank == 1 and update % 2 == 1 else (6, 6)
    return torch.randn(EACH, 1, *size, generator=generator, dtype=torch.float64), torch.arange(EACH) % 2


def train(net, model, ranks):
    """Take steps of the optimizer and local updates, each for several batches."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for update in range(UPDATES):
        optimizer.zero_grad()
        for batch in range(BATCHES):
            parts = [data(update, batch, rank) for rank in ranks]
            if len({images.shape for images, _ in parts}) == 1:
                parts = [tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))]
            wait = isinstance(model, DistributedDataParallel) and batch < BATCHES - 1
            with model.no_sync() if wait else contextlib.nullcontext():
                losses = [nn.functional.cross_entropy(model(images), labels) for images, labels in parts]
                (sum(losses) / len(losses) / BATCHES).backward()
        optimizer.step()
        net.code.apply_update()
        net.dense.apply_update()


def train_unevenly(ranks):
    """Take local updates, every other one without images of the second process."""
    layer = Net(seed=7, backprop=False).code
    for update in range(UPDATES):
        for rank in ranks:
            if rank == 0 or update % 2 == 0:
                layer(data(update, 0, rank)[0])
        layer.apply_update()
    return layer.dictionary


def work(rank, folder):
    """Be one of the two processes."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=30),
    )
    for backprop in (False, True):
        net = Net(seed=rank, backprop=backprop)  # they begin unlike; the wrapper hands out those of the first
        train(net, DistributedDataParallel(net), [rank])
        save_file(dict(net.named_parameters()), f"{folder}/trained-{backprop}-{rank}")
    save_file({"dictionary": train_unevenly([rank])}, f"{folder}/uneven-{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run both processes, and return the folder they left their results in."""
    folder = tmp_path_factory.mktemp("processes")
    logs = [folder / f"log-{rank}" for rank in range(2)]
    with contextlib.ExitStack() as stack:
        processes = []
        for rank, log in enumerate(logs):
            out = stack.enter_context(log.open("w"))
            command = [sys.executable, "-W", "error", __file__, str(rank), str(folder)]
            processes.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=90)
    told = "\n".join(log.read_text() for log in logs)
    assert [process.returncode for process in processes] == [0, 0], told
    return folder


@pytest.mark.parametrize("backprop", [False, True])
def test_two_processes_keep_equal_dictionaries_and_learn_what_one_learns_from_all_images(results, backprop):
    first, second = (load_file(results / f"trained-{backprop}-{rank}") for rank in range(2))
    net = Net(seed=0, backprop=backprop)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    train(net, net, [0, 1])
    assert first.keys() == before.keys()
    for name, value in net.named_parameters():
        assert torch.equal(first[name], second[name]), name
        assert not torch.allclose(value, before[name], atol=1e-3), f"{name} learned nothing"
        torch.testing.assert_close(first[name], value.detach(), rtol=1e-9, atol=1e-9)


def test_processes_with_and_without_images_update_together(results):
    first, second = (load_file(results / f"uneven-{rank}")["dictionary"] for rank in range(2))
    assert torch.equal(first, second)
    expected = train_unevenly([0, 1])
    torch.testing.assert_close(first, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(expected, train_unevenly([0]), atol=1e-3)  # the second process's images count


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
