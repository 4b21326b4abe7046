"""The detector's losses over two processes, one of which has a frame without boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_detector import make_detector, make_sample

from streampetr_vit.engine import load_config
from streampetr_vit.engine.distributed import loss_reduction, training_module
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.structures import Boxes2D, Sample

LABELS = torch.empty(0, dtype=torch.long)
EMPTY = {
    "gt_boxes": torch.empty(0, 9),
    "gt_labels": LABELS,
    "boxes2d": [Boxes2D(torch.empty(0, 4), torch.empty(0, 2), LABELS, torch.empty(0))] * 6,
}


def sample_of(rank: int) -> Sample:
    return make_sample(0, **(EMPTY if rank else {}))


def losses_and_gradient(rank: int, world_size: int) -> tuple[dict[str, float], torch.Tensor]:
    """Losses of this rank's frame, and one gradient after synchronisation."""
    detector = make_detector().train()
    reduce_mean = loss_reduction()
    detector.criterion = TrainingLoss(
        replace(detector.criterion.detection, reduce_mean=reduce_mean),
        replace(detector.criterion.image, reduce_mean=reduce_mean),
    )
    options = load_config("configs/quickstart.py", []).train.ddp  # those that every recipe has
    model = training_module(detector, **options)
    torch.manual_seed(1)
    losses, _ = model([sample_of(rank)], None)
    sum(losses.values()).backward()
    gradient = detector.head.class_branch[-1].weight.grad
    return {name: value.item() for name, value in losses.items()}, gradient


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    # detectron2 asks its own group for the ranks of this machine.
    from detectron2.utils import comm

    comm._LOCAL_PROCESS_GROUP = dist.group.WORLD
    torch.save(losses_and_gradient(rank, 2), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_a_rank_without_boxes_takes_part_in_the_divisors(tmp_path: Path) -> None:
    mp.start_processes(run_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    (full, gradient), (empty, same) = (
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    alone, _ = losses_and_gradient(rank=0, world_size=1)
    assert set(full) == set(empty) == set(alone)
    assert torch.equal(gradient, same) and gradient.any()
    for name, value in alone.items():
        # These divide by the mean count over ranks, half of this rank's; the others do not.
        shared = name.endswith(("loss_bbox", "centers2d_losses", "centerness_losses"))
        assert full[name] == pytest.approx((2.0 if shared else 1.0) * value, rel=1e-5), name
    assert empty["loss_bbox"] == empty["dn_loss_bbox"] == empty["enc_loss_bbox"] == 0
