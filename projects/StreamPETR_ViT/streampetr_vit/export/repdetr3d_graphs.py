"""RepDETR3D as the three graphs of Autoware's node.

The node passes tensors from graph to graph without a look at them. So under StreamPETR's names they
hold what this head needs: all levels of features one after the other, one gain and offset for each
camera, and the projections.

Shape letters: N cameras, H W picture in pixels, E channels, L levels, h w feature map of a level, S
the cells of all levels of one camera.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streampetr_vit.export.cameras import invert_projection, lidar_to_camera
from streampetr_vit.export.frames import Mounting
from streampetr_vit.export.temporal_graph import TemporalGraph
from streampetr_vit.modeling.decoder.camera_sampling import CameraMaps
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.structures import CameraRig
from streampetr_vit.structures.pose import affine


class BackboneGraph(nn.Module):
    """Pictures to the levels of the pyramid."""

    def __init__(self, detector: StreamPETR) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, img: Tensor) -> Tensor:
        """Normalised pictures (1, N, 3, H, W) to (1, N, E, S)."""
        levels = self.detector.image_features(img)
        # L times (1, N, E, h, w) -> (1, N, E, S)
        return torch.cat([level.float().flatten(3) for level in levels], dim=3)


class PositionGraph(nn.Module):
    """Cameras to what the head needs of them.

    Args:
        image_size: (H, W).
        mounting: of the frame that `img2lidar` maps to.
    """

    def __init__(
        self, head: RepDETR3DHead, image_size: tuple[int, int], mounting: Mounting
    ) -> None:
        super().__init__()
        self.head, self.mounting, self.image_size = head, mounting, image_size

    def forward(
        self, img_metas_pad: Tensor, intrinsics: Tensor, img2lidar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Picture size (3,) and matrices (1, N, 4, 4) to (1, N, 2 E) gains and offsets, and to the
        (1, N, 12) numbers of lidar_to_image.
        """
        image_to_lidar = self.mounting.to_lidar(img2lidar)
        projections = invert_projection(image_to_lidar)
        rig = CameraRig(projections, intrinsics, lidar_to_camera(image_to_lidar, intrinsics))
        code = self.head.encode_rig(rig, self.image_size)
        both = torch.cat((code.gain, code.offset), dim=2)[..., 0, 0]  # (1, N, 2 E, 1, 1)
        # Always 1, but the size must be used: the node looks for this input, and an exporter drops
        # inputs that nothing depends on.
        height, width = self.image_size
        one = torch.ones_like(img_metas_pad[:1])
        scale = torch.cat((width / img_metas_pad[1:2], height / img_metas_pad[:1], one))
        return both, (projections[:, :, :3] * scale[:, None]).flatten(2)  # (1, N, 12)


class HeadGraph(TemporalGraph):
    """Levels, pose and memory to boxes and memory.

    Args:
        image_size: (H, W).
        level_sizes: (h, w) of each level.
        mounting: of the frame that `data_ego_pose` is the pose of.
    """

    def __init__(
        self,
        head: RepDETR3DHead,
        image_size: tuple[int, int],
        level_sizes: Sequence[tuple[int, int]],
        mounting: Mounting,
    ) -> None:
        super().__init__(head, mounting)
        self.image_size, self.level_sizes = image_size, tuple(level_sizes)

    def image(self, x: Tensor, pos_embed: Tensor, cone: Tensor, points_m: Tensor) -> CameraMaps:
        """What queries sample; see `TemporalGraph.image`."""
        assert isinstance(self.head, RepDETR3DHead)
        cells = [height * width for height, width in self.level_sizes]
        levels = [
            level.unflatten(3, size)  # (1, N, E, h w) -> (1, N, E, h, w)
            for level, size in zip(x.split(cells, dim=3), self.level_sizes, strict=True)
        ]
        gain, offset = pos_embed[..., None, None].chunk(2, dim=2)  # (1, N, E, 1, 1) each
        projections = cone.unflatten(2, (3, 4))
        projections = affine(projections[..., :3], projections[..., 3])
        return self.head.camera_maps(levels, RigCode(gain, offset), projections, self.image_size)
