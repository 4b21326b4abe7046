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
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.ray_denoising import RayDenoising
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.structures import Boxes2D, Sample

LABELS = torch.empty(0, dtype=torch.long)
EMPTY = {
    "gt_boxes": torch.empty(0, 9),
    "gt_labels": LABELS,
    "boxes2d": [Boxes2D(torch.empty(0, 4), torch.empty(0, 2), LABELS, torch.empty(0))] * 6,
}


# Losses of the 3D head, and the boxes of the 2D head, that divide by the mean over ranks.
SHARED = ("loss_bbox", "loss_centerness", "loss_yawness")


def sample_of(rank: int) -> Sample:
    return make_sample(0, **(EMPTY if rank else {}))


def losses_and_gradient(rank: int, with_options: bool) -> tuple[dict[str, float], torch.Tensor]:
    """Losses of this rank's frame, and one gradient after synchronisation.

    Options are those of docs/accuracy.md, all together.
    """
    detector = make_detector(with_quality=with_options).train()
    detector.denoising = DenoisingNoise(groups=2, ray=RayDenoising(groups=int(with_options)))
    reduce_mean = loss_reduction()
    detection = replace(detector.criterion.detection, soft_class_target=with_options)
    detector.criterion = TrainingLoss(
        replace(detection, reduce_mean=reduce_mean),
        replace(detector.criterion.image, reduce_mean=reduce_mean),
    )
    options = load_config("configs/quickstart.py", []).train.ddp  # those that every recipe has
    model = training_module(detector, **options)
    torch.manual_seed(1)
    losses, _ = model([sample_of(rank)], None)
    sum(losses.values()).backward()
    gradient = detector.head.class_branch[-1].weight.grad
    return {name: value.item() for name, value in losses.items()}, gradient


def run_rank(rank: int, folder: str, with_options: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    # detectron2 asks its own group for the ranks of this machine.
    from detectron2.utils import comm

    comm._LOCAL_PROCESS_GROUP = dist.group.WORLD
    torch.save(losses_and_gradient(rank, with_options), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("with_options", [False, True], ids=["published", "options"])
def test_a_rank_without_boxes_takes_part_in_the_divisors(
    tmp_path: Path, with_options: bool
) -> None:
    arguments = (str(tmp_path), with_options)
    mp.start_processes(run_rank, arguments, nprocs=2, start_method="spawn")
    (full, gradient), (empty, same) = (
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    alone, _ = losses_and_gradient(0, with_options)
    assert set(full) == set(empty) == set(alone)
    assert torch.equal(gradient, same) and gradient.any()
    for name, value in alone.items():
        # These divide by the mean count over ranks, half of this rank's; the others do not.
        shared = name.endswith((*SHARED, "centers2d_losses", "centerness_losses"))
        assert full[name] == pytest.approx((2.0 if shared else 1.0) * value, rel=1e-5), name
    assert empty["loss_bbox"] == empty["dn_loss_bbox"] == empty["enc_loss_bbox"] == 0
    assert ("loss_yawness" in full) == with_options
