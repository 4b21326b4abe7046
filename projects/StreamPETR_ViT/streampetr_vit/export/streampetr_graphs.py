"""StreamPETR as the three graphs of Autoware's node.

Shape letters: N cameras, H W picture in pixels, E channels, h w feature map, T = N h w tokens, P
memory entries that go in, Q queries, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampetr_vit.export.cameras import ConeCameras, invert_projection
from streampetr_vit.export.frames import Mounting
from streampetr_vit.export.temporal_graph import TemporalGraph
from streampetr_vit.modeling.decoder.attention import ImageTokens
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead, as_tokens
from streampetr_vit.modeling.ops.geometry import token_centers


class BackboneGraph(nn.Module):
    """Pictures to tokens, already embedded for the head: E channels are fewer than the backbone's.

    Args:
        detector: with a `StreamPETRHead`.
    """

    def __init__(self, detector: StreamPETR) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, img: Tensor) -> Tensor:
        """Normalised pictures (1, N, 3, H, W) to (1, N, E, h, w)."""
        features = self.detector.image_features(img)
        assert isinstance(features, Tensor) and isinstance(self.detector.head, StreamPETRHead)
        with torch.autocast("cpu", enabled=False):  # it is a part of the head
            tokens = self.detector.head.token_embed(as_tokens(features.float()))  # (1, T, E)
        # (1, T, E) -> (1, N, h, w, E) -> (1, N, E, h, w)
        maps = tokens.unflatten(1, (features.shape[1], *features.shape[-2:]))
        return maps.permute(0, 1, 4, 2, 3)


class PositionGraph(nn.Module):
    """Cameras to the code of the image tokens.

    Args:
        image_size: (H, W).
        mounting: of the frame that `img2lidar` maps to.
    """

    pixels: Tensor

    def __init__(
        self, head: StreamPETRHead, image_size: tuple[int, int], mounting: Mounting
    ) -> None:
        super().__init__()
        self.head, self.mounting, self.image_size = head, mounting, image_size
        self.register_buffer("pixels", _pixels(head, image_size), persistent=False)

    def forward(
        self, img_metas_pad: Tensor, intrinsics: Tensor, img2lidar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Picture size (3,), matrices (1, N, 4, 4) to (1, T, E) positions and (1, T, 8) cones."""
        height, width = self.image_size
        # Always 1, but the size must be used: the node looks for this input, and an exporter drops
        # inputs that nothing depends on.
        scale = torch.stack((img_metas_pad[1] / width, img_metas_pad[0] / height))
        image_to_lidar = self.mounting.to_lidar(img2lidar)
        return self.head.position_encoder.embed(image_to_lidar, intrinsics, self.pixels * scale)


class HeadGraph(TemporalGraph):
    """Tokens, pose and memory to boxes and memory.

    Args:
        cameras: N.
        image_size: (H, W).
        mounting: of the frame that `data_ego_pose` is the pose of.
    """

    pixels: Tensor

    def __init__(
        self,
        head: StreamPETRHead,
        cameras: int,
        image_size: tuple[int, int],
        mounting: Mounting,
    ) -> None:
        super().__init__(head, mounting)
        self.num_cameras = cameras
        pixels, encoder = _pixels(head, image_size), head.position_encoder
        self.register_buffer("pixels", pixels, persistent=False)
        self.cone_cameras = ConeCameras(pixels, *encoder.cone_depths_m, encoder.position_range)

    def image(self, x: Tensor, pos_embed: Tensor, cone: Tensor, points_m: Tensor) -> ImageTokens:
        """What queries attend to; see `TemporalGraph.image`."""
        assert isinstance(self.head, StreamPETRHead)
        prior = None
        if self.head.prior_sigma_cells:
            projections = invert_projection(self.cone_cameras(cone, self.num_cameras))
            prior = self.head.prior(points_m, projections, self.pixels)
        return self.head.image_tokens(as_tokens(x), self.head.code_of(pos_embed, cone), prior)


def _pixels(head: StreamPETRHead, image_size: tuple[int, int]) -> Tensor:
    height, width = (side // head.stride for side in image_size)
    return token_centers(height, width, head.stride, torch.device("cpu"))
