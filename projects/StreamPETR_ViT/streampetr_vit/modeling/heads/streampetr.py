"""The StreamPETR head: object queries that attend to the image tokens of one frame.

Shape letters: B streams, N cameras, C feature channels, H W feature height and width, T = N H W
tokens, E channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.decoder.attention import ImageTokens
from streampetr_vit.modeling.decoder.decoder import TemporalDecoder
from streampetr_vit.modeling.heads.geometric_prior import projection_bias
from streampetr_vit.modeling.heads.temporal_head import Features, TemporalHead
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.ops.geometry import gather_tokens, token_centers
from streampetr_vit.modeling.ops.linear import Linear
from streampetr_vit.modeling.temporal.motion_layer_norm import FeatureGate, MotionLayerNorm
from streampetr_vit.structures import CameraRig, Frame
from streampetr_vit.structures.tensors import map_tensors


class StreamPETRHead(TemporalHead):
    """Temporal 3D detection head on one map of features (B, N, C, H, W).

    Args:
        in_channels: C of the image features.
        position_encoder: 3D position embedding of the image tokens, to E channels.
        stride: pixels of one feature cell.
        prior_sigma_cells: width of the geometric prior on the cross-attention in feature cells; 0
            is the published model, without prior (see `geometric_prior`).
        options: see `TemporalHead`.
    """

    reads_levels = False

    def __init__(
        self,
        in_channels: int,
        decoder: TemporalDecoder,
        position_encoder: ImagePositionEncoder,
        *,
        stride: int = 16,
        prior_sigma_cells: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(decoder, TemporalDecoder):
            raise ValueError(
                f"StreamPETRHead needs a TemporalDecoder, not {type(decoder).__name__}"
            )
        super().__init__(decoder, **options)
        self.stride, self.prior_sigma_cells = stride, prior_sigma_cells
        dim = decoder.embed_dim
        self.position_encoder = position_encoder
        self.token_embed = nn.Sequential(Linear(in_channels, dim), nn.ReLU(), Linear(dim, dim))
        self.token_modulation = MotionLayerNorm(8, dim)  # by the cone code's 8 numbers
        self.position_gate = FeatureGate(dim)

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """Of all tokens; see `TemporalHead.encode_rig`."""
        height, width = (side // self.stride for side in image_size)
        pixels = token_centers(height, width, self.stride, rig.lidar_to_image.device)
        return self._encode(rig, pixels, None)

    def _encode(self, rig: CameraRig, pixels: Tensor, token_indexes: Tensor | None) -> RigCode:
        with torch.autocast(pixels.device.type, enabled=False):
            position, cone = self.position_encoder(
                rig.lidar_to_image, rig.intrinsics, pixels, token_indexes
            )
            return self.code_of(position, cone)

    def code_of(self, position: Tensor, cone: Tensor) -> RigCode:
        """The code of tokens with what their `ImagePositionEncoder` says of them."""
        return RigCode(*self.token_modulation.coefficients(cone), position)

    def image_for_queries(
        self,
        features: Features,
        frame: Frame,
        points_m: Tensor,
        token_indexes: Tensor | None,
        image_size: tuple[int, int],
        rig_code: RigCode | None = None,
    ) -> ImageTokens:
        """The tokens of all cameras; see `TemporalHead.image_for_queries`."""
        if not isinstance(features, Tensor):
            raise InputError(
                f"StreamPETRHead reads one map of features, not {len(features)}: set "
                "model.in_feature to one name"
            )
        height, width = features.shape[-2:]
        pixels = token_centers(height, width, self.stride, features.device)
        tokens = as_tokens(features)
        if rig_code is None:
            code = self._encode(frame.rig, pixels, token_indexes)  # of the chosen tokens only
        else:
            _check_code(rig_code, tokens)
            code = map_tensors(rig_code, lambda value: gather_tokens(value, token_indexes))
        tokens = self.token_embed(gather_tokens(tokens, token_indexes))  # (B, K, E)
        prior = self.prior(points_m, frame.rig.lidar_to_image, pixels)
        if prior is not None:
            # (B, Q, T) -> (B, T, Q) -> (B, K, Q) -> (B, Q, K)
            prior = gather_tokens(prior.transpose(1, 2), token_indexes).transpose(1, 2)
        return self.image_tokens(tokens, code, prior)

    def prior(self, points_m: Tensor, lidar_to_image: Tensor, pixels: Tensor) -> Tensor | None:
        """The geometric prior (B, Q, T) of all tokens, or None where it is off."""
        if not self.prior_sigma_cells:
            return None
        return projection_bias(
            points_m, lidar_to_image, pixels, self.prior_sigma_cells * self.stride
        )

    def image_tokens(self, tokens: Tensor, code: RigCode, prior: Tensor | None) -> ImageTokens:
        """What queries attend to.

        Args:
            tokens: (B, K, E) of `token_embed`.
            code: of these K tokens.
            prior: (B, Q, K) of these tokens, or None.
        """
        assert code.position is not None
        tokens = self.token_modulation.modulate(tokens, code.gain, code.offset)
        position = self.position_gate(code.position, tokens)  # what a token shows opens the gate
        return ImageTokens(tokens, position, prior)


def as_tokens(maps: Tensor) -> Tensor:
    """Maps (B, N, C, H, W) as tokens (B, T, C), camera by camera and row by row."""
    # (B, N, C, H, W) -> (B, N, C, HW) -> (B, N, HW, C) -> (B, T, C)
    return maps.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)


def _check_code(code: RigCode, tokens: Tensor) -> None:
    if code.gain.shape[:2] != tokens.shape[:2]:
        raise InputError(
            f"the rig's code is of (streams, tokens) {tuple(code.gain.shape[:2])}, the features "
            f"are of {tuple(tokens.shape[:2])}: it must be made for this batch, these cameras and "
            "this image size, and model.head.stride must be the stride of model.in_feature"
        )
