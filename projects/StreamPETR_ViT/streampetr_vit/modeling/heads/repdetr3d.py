"""The RepDETR3D head: object queries that sample several levels of features where points project.

Shape letters: B streams, N cameras, C feature channels, H W feature height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.decoder.camera_sampling import CameraMaps
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.heads.temporal_head import Features, TemporalHead
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.temporal.motion_layer_norm import MotionLayerNorm
from streampetr_vit.structures import CameraRig, Frame

_CAMERA_DIM = 14  # two focal lengths, and a 3 x 4 pose


class RepDETR3DHead(TemporalHead):
    """Temporal 3D detection head on a pyramid: a list of (B, N, E, H, W), the finest first.

    For the `options` see `TemporalHead`.
    """

    reads_levels = True

    def __init__(self, decoder: SamplingDecoder, **options: Any) -> None:
        if not isinstance(decoder, SamplingDecoder):
            raise ValueError(f"RepDETR3DHead needs a SamplingDecoder, not {type(decoder).__name__}")
        super().__init__(decoder, **options)
        self._channels_last = decoder.sampling_kernel == "gather"
        self.token_modulation = MotionLayerNorm(_CAMERA_DIM, decoder.embed_dim, use_ln=False)

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """Of the maps; see `TemporalHead.encode_rig`."""
        with torch.autocast(rig.intrinsics.device.type, enabled=False):
            # (B, N, 14) -> two of (B, N, E): one gain for the whole picture of a camera
            gain, offset = self.token_modulation.coefficients(_camera_condition(rig))
            return RigCode(gain[..., None, None], offset[..., None, None])  # (B, N, E, 1, 1)

    def image_for_queries(
        self,
        features: Features,
        frame: Frame,
        points_m: Tensor,
        token_indexes: Tensor | None,
        image_size: tuple[int, int],
        rig_code: RigCode | None = None,
    ) -> CameraMaps:
        """The modulated maps of all cameras; see `TemporalHead.image_for_queries`."""
        if isinstance(features, Tensor):
            raise InputError(
                "RepDETR3DHead reads several levels of features: set model.in_feature to their "
                'names, the finest first, such as ["p2", "p3", "p4", "p5"]'
            )
        if token_indexes is not None:
            raise InputError("RepDETR3DHead samples maps and has no tokens to choose from")
        channels = {level.shape[2] for level in features}
        if channels != {self.embed_dim}:
            raise InputError(
                f"the levels have {sorted(channels)} channels, the decoder {self.embed_dim}: set "
                "model.backbone.out_channels to model.head.decoder.embed_dim"
            )
        code = rig_code or self.encode_rig(frame.rig, image_size)
        return self.camera_maps(features, code, frame.rig.lidar_to_image, image_size)

    def camera_maps(
        self,
        levels: Sequence[Tensor],
        code: RigCode,
        lidar_to_image: Tensor,
        image_size: tuple[int, int],
    ) -> CameraMaps:
        """What queries sample: modulated maps (B, N, E, H, W), and where they are."""
        maps = [code.gain * level + code.offset for level in levels]
        if self._channels_last:  # as "gather" reads them; once for all layers
            maps = [_channels_last(level) for level in maps]
        return CameraMaps(maps, lidar_to_image, image_size)


def _camera_condition(rig: CameraRig) -> Tensor:
    """(B, N, 14): focal lengths in thousands of pixels, then lidar_to_camera by rows.

    Quirk: the focal length across is negative in a flipped picture, and lidar_to_camera does not
    follow the scene augmentation, as in the training of the released weights.
    """
    intrinsics, pose = rig.intrinsics, rig.lidar_to_camera
    focal = torch.stack((intrinsics[..., 0, 0], intrinsics[..., 1, 1]), dim=-1) / 1e3
    return torch.cat((focal, pose[..., :3, :].flatten(-2)), dim=-1)  # 2 + 12


def _channels_last(level: Tensor) -> Tensor:
    """The same (B, N, E, H, W), with E fastest in memory."""
    # torch has the format for four dimensions only: (B, N, E, H, W) -> (B * N, E, H, W) and back.
    images = level.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return images.unflatten(0, level.shape[:2])
