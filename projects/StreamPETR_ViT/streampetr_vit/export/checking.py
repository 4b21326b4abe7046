"""Which detectors leave PyTorch as the three graphs, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.decoder.attention import MultiHeadAttention
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.ops.ragged_attention import RAGGED_KERNELS


def check_exportable(detector: StreamPETR, image_size: tuple[int, int]) -> None:
    """Raises InputError, with the first reason, if a detector does not export.

    Args:
        image_size: height and width of its pictures in pixels.
    """
    for reason in _reasons(detector, image_size):
        raise InputError(f"cannot export: {reason}")


def _reasons(detector: StreamPETR, image_size: tuple[int, int]) -> Iterator[str]:
    head = detector.head
    if not isinstance(head, (StreamPETRHead, RepDETR3DHead)):
        yield (
            f"model.head is a {type(head).__name__}; there are graphs for StreamPETRHead and "
            "RepDETR3DHead"
        )
    if detector.training:
        yield "the detector is in training mode: call eval()"
    if detector.device.type != "cpu":
        yield f"the detector is on {detector.device}: load it with device='cpu'"
    if head.memory_length == 0:
        yield (
            "model.head.memory_length is 0 (PETR, a detector of single frames), and the interface "
            "has a memory: export a recipe of StreamPETR or RepDETR3D"
        )
    if head.num_remembered == 0:
        yield (
            "model.head.num_remembered is 0: nothing would enter the memory, and the graph could "
            "not tell where a stream goes on"
        )
    if head.remember_by_quality:
        yield (
            "model.head.remember_by_quality is True, but the graphs' interface has no place for "
            "the quality, and without it the memory would be another one: train with "
            "model.head.remember_by_quality=False"
        )
    if head.quality_branch is not None:
        yield (
            "model.head.with_quality is True, but the graphs' interface has no place for the "
            "quality: export with model.head.with_quality=False; the boxes are the same, and the "
            "class score ranks them"
        )
    if detector.token_ratio != 1:
        yield (
            f"model.token_ratio is {detector.token_ratio}: the graphs have no 2D head that chooses "
            "tokens; set model.token_ratio=1 if the weights were trained so"
        )
    padded = detector.padded_size(image_size)
    if padded != tuple(image_size):
        yield (
            f"dataloader.train.mapper.image_aug.final_size is {list(image_size)}, which the "
            f"network pads to {list(padded)}, and a vehicle's program does not pad: give it "
            f"pictures of sides that are multiples of {detector.size_divisibility}, such as "
            f"dataloader.train.mapper.image_aug.final_size={list(padded)}"
        )
    for name, module in detector.named_modules():
        if isinstance(module, ViT) and module.kernel in ("xformers", *RAGGED_KERNELS):
            yield (
                f"the attention kernel of {name} is {module.kernel!r}, which only GPUs have: set "
                "model.backbone.net.xattn=true, which computes the same"
            )
        if isinstance(module, MultiHeadAttention) and module.kernel == "xformers":
            yield (
                f"the attention kernel of {name} is 'xformers', which only PyTorch has: set "
                "model.head.decoder.kernel=sdpa, which computes the same"
            )
        if isinstance(module, CameraSampling) and module.kernel == "gather":
            yield (
                f"the sampling kernel of {name} is 'gather', whose shapes depend on the values: "
                "set model.head.decoder.sampling_kernel=grid_sample, which computes the same"
            )
