"""Two processes on the CPU do what one process does with the same frames per step."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lazyconfig_train_net
import pytest
import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel
from toy_task import ToyDataset, ToyDetector, build_toy_train_loader

from streampetr_vit.engine.distributed import (
    reduce_mean,
    resolve_device,
    training_module,
    wait_for_main,
)
from streampetr_vit.engine.hooks import ScheduleHook
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import InputError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def arguments(output: Path, *overrides: str) -> list[str]:
    return [
        *("--config-file", str(HERE / "toy_config.py")),
        *(f"train.output_dir={output}", "train.max_iter=12", "dataloader.train.bad=[9]"),
        "model.remembers=True",  # each step's losses depend on the steps before
        *overrides,
    ]


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


@pytest.fixture
def one_process(tmp_path: Path) -> Path:
    """Output of a training with four lanes; the sample that is NaN makes one step a skip."""
    words = arguments(tmp_path / "one")
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))
    return tmp_path / "one"


def logged_losses(output: Path) -> list[float]:
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [row["total_loss"] for row in rows if "total_loss" in row]


def check(output: Path, one: Path) -> None:
    """Compares a run of two processes with a run of one."""
    expected, found = final_weights(one), final_weights(output)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    # What is logged is the mean over both.
    assert logged_losses(output) == pytest.approx(logged_losses(one), rel=1e-5)
    log = (output / "log.txt").read_text()
    assert "4 frames = 2 lanes x 2 processes" in log
    # Only rank 0 saw the NaN, both skipped the step.
    for name in ("log.txt", "log.txt.rank1"):
        assert "iteration 2: step skipped" in (output / name).read_text()


def test_torchrun_equals_one_process(tmp_path: Path, one_process: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        str(ROOT / "tools" / "lazyconfig_train_net.py"),
        *arguments(tmp_path, "dataloader.train.lanes_per_rank=2"),
    ]
    paths = [str(HERE), str(ROOT / "projects" / "StreamPETR_ViT"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    check(tmp_path, one_process)


def test_own_processes_equal_one_process(
    tmp_path: Path, one_process: Path, quick_processes: None
) -> None:
    words = arguments(tmp_path, "dataloader.train.lanes_per_rank=2")
    launch(
        lazyconfig_train_net.main,
        (default_argument_parser().parse_args(words),),
        num_processes=2,
        use_gpu=False,
    )
    check(tmp_path, one_process)


def train_for_ten_seconds(folder: str) -> None:
    """Rank 0's clock runs five times as fast as rank 1's."""
    torch.set_num_threads(1)
    rank = comm.get_rank()
    ticks = itertools.count(step=2.5 if rank == 0 else 0.5)
    model = ToyDetector()
    optimizer = torch.optim.AdamW(model.parameters())
    loader = build_toy_train_loader(rank=rank, world_size=2)
    trainer = StreamingTrainer(training_module(model), optimizer, loader)
    clock = partial(next, ticks)
    hook = ScheduleHook(lambda step, progress: 1.0, optimizer, max_seconds=10, clock=clock)
    trainer.register_hooks([hook])
    trainer.train(0, 30)
    Path(folder, f"rank{rank}").write_text(f"{trainer.iter} {hook.elapsed_s}")


def test_all_ranks_stop_when_the_time_of_rank_0_is_up(
    tmp_path: Path, quick_processes: None
) -> None:
    launch(
        train_for_ten_seconds,
        (str(tmp_path),),
        num_processes=2,
        use_gpu=False,
    )
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["4 10.0", "4 10.0"]


def test_one_process_reduces_nothing() -> None:
    value = torch.tensor([1.0, 2.0])
    assert reduce_mean(value) is value
    module = training_module(ToyDetector(), broadcast_buffers=False)
    assert not isinstance(module, DistributedDataParallel)


def test_the_training_module_calls_the_losses_of_its_model() -> None:
    model = ToyDetector(remembers=True)
    module = training_module(model, broadcast_buffers=False)
    samples, memory = [ToyDataset(4)[i] for i in range(2)], torch.ones(2)
    assert list(module.parameters()) == list(model.parameters())
    for given in (None, memory):
        losses, remembered = module(samples, given)
        expected, expected_memory = model.losses(samples, given)
        assert losses == expected and torch.equal(remembered, expected_memory)


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="train.device='cuda'.*sees no GPU.*train.device=cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:", "cuda:-1", "cuda:x", "", 0])
def test_a_device_that_is_none(name: str) -> None:
    with pytest.raises(InputError, match="train.device=.* is unknown: allowed are .*cuda:N"):
        resolve_device(name)


@pytest.fixture
def two_gpus(monkeypatch) -> list[int]:
    """A machine with two GPUs, of which the launcher chose the second; what was made current."""
    current = [1]
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: current[-1],
        "set_device": current.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return current


@pytest.mark.parametrize(("name", "index"), [("auto", 1), ("cuda", 1), ("cuda:0", 0)])
def test_the_gpu_of_a_process_becomes_the_current_one(
    name: str, index: int, two_gpus: list[int]
) -> None:
    assert resolve_device(name) == torch.device("cuda", index)
    assert two_gpus[-1] == index


def test_a_gpu_beyond_the_last_one(two_gpus: list[int]) -> None:
    with pytest.raises(InputError, match="train.device='cuda:2', but torch sees 2"):
        resolve_device("cuda:2")
    assert two_gpus == [1]


def test_several_processes_do_not_share_a_gpu(two_gpus: list[int], monkeypatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="'cuda:1' with 2 processes.*CUDA_VISIBLE_DEVICES"):
        resolve_device("cuda:1")
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="were started for the CPU.*--num-gpus"):
        resolve_device("cuda")


def test_waiting_for_rank_0_is_done_on_the_cpu(monkeypatch) -> None:
    groups = []
    monkeypatch.setattr(comm, "_get_global_gloo_group", lambda: "gloo group")
    monkeypatch.setattr(dist, "barrier", lambda group=None: groups.append(group))
    wait_for_main()
    assert groups == []  # one process waits for nobody
    monkeypatch.setattr(comm, "get_world_size", lambda: 8)
    wait_for_main()
    assert groups == ["gloo group"]
