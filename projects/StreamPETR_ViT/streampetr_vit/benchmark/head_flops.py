"""Floating-point operations of the 3D head, from the configuration; multiply-add = 2.

Matrix products only: linear layers and attention. RepDETR3D's sampling is interpolation and adds
none. Shape letters: Q queries (propagated ones included), M memory entries, T image tokens of all
cameras, E channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streampetr_vit.benchmark.flops import with_defaults
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder, TemporalDecoder
from streampetr_vit.modeling.heads.box_coding import CODE_SIZE
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.heads.temporal_head import TemporalHead
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder

_MOTION_CODE = 180  # channels of the code of an entry's motion
_CONE_CODE = 8  # and of a token's view


@dataclass(frozen=True)
class HeadFlops:
    """Operations of one stream's frame.

    Attributes:
        rig: of what a rig fixes: the positions of the image tokens, and their modulation's factors.
        rest: of everything else, in every frame; the decoder above all.
    """

    rig: float
    rest: float


def head_flops(head: Mapping[str, Any], cameras: int, tokens: int) -> HeadFlops:
    """Operations of the head section of a configuration, for one frame of one stream.

    Args:
        head: its section.
        cameras: of the rig.
        tokens: of all images that the head sees; unused by heads that sample.
    """
    settings = with_defaults(TemporalHead, head)
    rig = 0.0
    if "position_encoder" in head:
        settings |= with_defaults(StreamPETRHead, head)
        decoder = with_defaults(TemporalDecoder, head["decoder"])
        rig, image = _tokens(settings, decoder["embed_dim"], tokens)
        look = _token_attention(settings, decoder["embed_dim"], tokens)
    else:
        decoder = with_defaults(SamplingDecoder, head["decoder"])
        image, look = 0.0, _sampling(settings, decoder, cameras)
    dim = decoder["embed_dim"]
    layer = _self_attention(settings, dim) + look
    layer += _queries(settings) * 4 * dim * decoder["feedforward_dim"]
    branches = (
        _queries(settings)
        * 2
        * dim
        * (2 * settings["num_branch_layers"] * dim + settings["num_classes"] + CODE_SIZE)
    )
    rest = image + _alignment(settings, dim) + decoder["num_layers"] * (layer + branches)
    return HeadFlops(rig, rest)


def _queries(head: Mapping[str, Any]) -> int:
    return head["num_queries"] + head["num_propagated"]


def _tokens(head: Mapping[str, Any], dim: int, tokens: int) -> tuple[float, float]:
    """What the rig fixes of the image tokens; and their content, and the gate on positions."""
    depths = with_defaults(ImagePositionEncoder, head["position_encoder"])["depth_num"]
    position = 4 * dim * (3 * depths + dim)
    modulation = _CONE_CODE * dim + 2 * dim**2
    content = head["in_channels"] * dim + dim**2
    return float(tokens * 2 * (position + modulation)), float(tokens * 2 * (content + 2 * dim**2))


def _token_attention(head: Mapping[str, Any], dim: int, tokens: int) -> float:
    queries = _queries(head)
    return 4 * dim * (dim * (queries + tokens) + queries * tokens)


def _self_attention(head: Mapping[str, Any], dim: int) -> float:
    queries = _queries(head)
    keys = queries + head["memory_length"] - head["num_propagated"]
    return 4 * dim * (dim * (queries + keys) + queries * keys)


def _sampling(head: Mapping[str, Any], decoder: Mapping[str, Any], cameras: int) -> float:
    """Points and weights of each query, and the projection of what was sampled."""
    dim, points = decoder["embed_dim"], decoder["num_points"]
    weights = decoder["num_levels"] * points * decoder["num_groups"]
    of_queries = _queries(head) * 2 * dim * (weights + 3 * points + dim)
    of_cameras = cameras * 2 * (12 * dim // 2 + dim // 2 * dim + dim * weights)
    return float(of_queries + of_cameras)


def _alignment(head: Mapping[str, Any], dim: int) -> float:
    """Position codes of learned queries and memory; their modulation by motion, and their age."""
    memory = head["memory_length"]
    points = (head["num_queries"] + memory) * 2 * (dim // 2 * 3 * dim + dim**2)
    if not memory:
        return float(points)
    # The learned queries all have the same motion and age: one code.
    motion = (memory + 1) * 2 * 2 * (_MOTION_CODE * dim + 2 * dim**2)
    return float(points + motion + (memory + 1) * 2 * dim**2)
