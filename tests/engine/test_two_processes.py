"""The real detector in two processes, with the DDP settings that every recipe ships."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils import comm
from tiny_detector import make_detector, make_repdetr3d, make_sample, same
from torch import nn

from streampetr_vit.data.build import build_window_loader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.engine import load_config
from streampetr_vit.engine.distributed import reduce_mean, training_module, wait_for_main
from streampetr_vit.engine.failures import ProcessError
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Sample

LANES = ("a", "b")  # the first is rank 0's
STEPS, WINDOWS = 20, 3
WINDOW = TrainingWindow(num_frame_losses=2, num_frame_head_grads=2, num_frame_backbone_grads=2)


def prepared(detector: StreamPETR, checkpointing: bool = True) -> StreamPETR:
    """With divisors over ranks, without random numbers."""
    detector.backbone.net.use_act_checkpoint = checkpointing
    detector.head.decoder.use_act_checkpoint = checkpointing
    # Each process draws its own.
    detector.grid_mask = detector.denoising = None
    detector.criterion = TrainingLoss(
        replace(detector.criterion.detection, reduce_mean=reduce_mean),
        replace(detector.criterion.image, reduce_mean=reduce_mean),
    )
    return detector


def trainer_of(detector: StreamPETR) -> StreamingTrainer:
    # Nothing of it is adaptive, which would enlarge small differences of a gradient.
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01)
    options = load_config("configs/quickstart.py", []).train.ddp
    return StreamingTrainer(training_module(detector, **options), optimizer)


def streams(scenes: tuple[str, ...]) -> list[list[Sample]]:
    """A frame of each stream per step. All have as many boxes: each rank divides by the same."""
    return [[make_sample(step, scene) for scene in scenes] for step in range(STEPS)]


def windows(scenes: tuple[str, ...]) -> list[list[list[Sample]]]:
    first = range(0, 3 * WINDOWS, 3)
    return [[[make_sample(i + j, s) for j in range(3)] for s in scenes] for i in first]


def trained(
    detector: StreamPETR,
    batches: Iterable[Any],
    checkpointing: bool = True,
    sees_own_pictures: bool = False,
) -> dict[str, Any]:
    """Takes a step with each batch. BatchNorm sees the pictures of its rank only if it may."""
    trainer = trainer_of(prepared(detector, checkpointing))
    if not sees_own_pictures:
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    scalars, gradients = [], {}
    for batch in batches:
        losses = trainer.forward(batch)
        trainer.backward(losses)
        if not gradients:
            gradients = {name: p.grad.clone() for name, p in detector.named_parameters()}
        scalars.append(trainer.update(losses, trainer.clip())[0])
    return {"scalars": scalars, "gradients": gradients, "weights": detector.state_dict()}


# Detectors and batches that two processes train as one does.
EQUAL: dict[str, tuple[Callable[[], StreamPETR], Callable[[tuple[str, ...]], list[Any]]]] = {
    "streampetr": (make_detector, streams),
    "repdetr3d": (make_repdetr3d, streams),
    "windows": (partial(make_detector, window=WINDOW), windows),
}


def equal_run(name: str, scenes: tuple[str, ...], checkpointing: bool) -> dict[str, Any]:
    make, batches = EQUAL[name]
    return trained(make(), batches(scenes), checkpointing)


def repdetr3d_steps(root: str, rank: int, world_size: int) -> dict[str, Any]:
    """Two steps of windows from the loader, with YOLOX and its BatchNorm."""
    augmentation = ImageAugmentation((32, 64), (0.17, 0.2))
    mapper = NuScenesMapper(training=True, image_aug=augmentation, boxes2d=True)
    dataset = {"root": root, "version": "v1.0-mini", "split": "mini_train"}
    loader = build_window_loader(
        dataset,
        mapper,
        lanes_per_rank=1,
        window_length=3,
        num_workers=0,
        rank=rank,
        world_size=world_size,
    )
    detector, batches = make_repdetr3d(window=WINDOW), iter(loader)

    def two_with_a_mark() -> Iterator[Any]:
        yield next(batches)
        for name, value in detector.named_buffers():
            if rank == 1 and name.endswith("running_mean"):
                value.fill_(1000.0)
        yield next(batches)

    return trained(detector, two_with_a_mark(), sees_own_pictures=True)


def both_ranks(folder: str, root: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    mine = LANES[rank : rank + 1]
    runs: dict[Any, Any] = {
        (name, checkpointing): equal_run(name, mine, checkpointing)
        for name in EQUAL
        for checkpointing in (False, True)
    }
    runs["statistics"] = repdetr3d_steps(root, rank, 2)
    unlike = make_detector(seed=rank)
    trainer_of(unlike)
    runs["start"] = unlike.state_dict()
    torch.save(runs, f"{folder}/rank{rank}.pt")
    if rank == 0:
        time.sleep(0.5)
        Path(folder, "report").touch()
    wait_for_main()
    Path(folder, f"saw{rank}").write_text(str(Path(folder, "report").exists()))


def test_the_detector_in_two_processes(
    tmp_path: Path, tiny_nuscenes: Path, quick_processes: None
) -> None:
    arguments = (str(tmp_path), str(tiny_nuscenes))
    launch(both_ranks, arguments, num_processes=2, use_gpu=False)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    # All begin with rank 0's values, of buffers too: a checkpoint has no others.
    differing = [
        name for name in first["start"] if not same(first["start"][name], second["start"][name])
    ]
    assert not differing
    # One process with both lanes, whose losses divide by both; over steps with memory.
    for name, (make, _) in EQUAL.items():
        one = equal_run(name, LANES, checkpointing=False)
        moved = [not torch.equal(p, one["weights"][k]) for k, p in make().named_parameters()]
        assert sum(moved) > 0.9 * len(moved)
        for way in ((name, False), (name, True)):
            two = first[way]
            assert two["scalars"] == second[way]["scalars"]
            # Measured: 1.4e-6, the noise of sums in another order.
            for step, expected in zip(two["scalars"], one["scalars"], strict=True):
                assert step == pytest.approx(expected, rel=1e-5, abs=1e-6), way
            torch.testing.assert_close(two["gradients"], one["gradients"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-4, atol=1e-6)
    # BatchNorm of a rank sees that rank's pictures: the weights agree, its statistics stay its own.
    ours, theirs = first["statistics"]["weights"], second["statistics"]["weights"]
    statistics = [name for name in ours if "running_" in name]
    assert statistics and all(name.startswith("image_head.") for name in statistics)
    means = [name for name in statistics if name.endswith("running_mean")]
    assert all((theirs[name] > 900).all() and (ours[name] < 100).all() for name in means)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name not in statistics)
    # Rank 1 waited for what rank 0 does alone.
    assert (tmp_path / "saw1").read_text() == "True"


def test_statistics_of_batch_norm_change_no_detection() -> None:
    """Checkpoints hold rank 0's statistics: nothing but the 2D head reads them, in no inference."""
    detector = make_repdetr3d().eval()
    before, after = [], []
    for found in (before, after):
        stream = Stream(detector, "float32")
        found += [stream([make_sample(step)])[0] for step in range(2)]
        for name, value in detector.named_buffers():
            if "running_" in name:
                value.fill_(7.0)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)


@one_line_errors()
def one_rank_ends(how: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()

    def batches():
        yield [make_sample(0, LANES[rank])]
        if rank == 1 and how == "raises":
            raise InputError("picture 7 is broken")
        if rank == 1:
            os._exit(9)  # as a process that the system ends, without a word
        yield [make_sample(1, LANES[rank])]

    trainer = trainer_of(prepared(make_detector()))
    trainer.data_loader = batches()
    trainer.train(0, 2)


def test_a_rank_that_raises_ends_the_others_in_a_line(
    tmp_path: Path, quick_processes: None, capfd
) -> None:
    with pytest.raises(SystemExit) as stop:
        launch(one_rank_ends, ("raises",), num_processes=2, use_gpu=False)
    assert stop.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "training failed" not in line]
    assert len(lines) == 1 and lines[0].endswith("error: picture 7 is broken")


def test_a_rank_that_dies_ends_the_others(tmp_path: Path, quick_processes: None, capfd) -> None:
    with pytest.raises(ProcessError, match="process 1 of this machine ended, status 9"):
        launch(one_rank_ends, ("dies",), num_processes=2, use_gpu=False)
    assert "Traceback" not in capfd.readouterr().err
