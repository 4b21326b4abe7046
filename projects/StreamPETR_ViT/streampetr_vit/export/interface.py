"""Names and shapes of the three graphs, as Autoware's node `autoware_camera_streampetr` binds them.

Everything is float32, static, and of one stream. Source: the node's network.cpp and memory.cu.

Shape letters: N cameras, H W picture in pixels, C E channels, h w feature map, T = N h w tokens,
P entries that go into the head, R entries that come out, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# File names that the node looks for.
BACKBONE = "simplify_extract_img_feat.onnx"
POSITION = "simplify_position_embedding.onnx"
HEAD = "simplify_pts_head_memory.onnx"
PARAMETERS = "ml_package_camera_streampetr.param.yaml"
# What else lies in the folder: the recipe, and how far the graphs are from PyTorch.
CONFIG = "config.yaml"
PARITY = "parity.json"
GRAPHS = (BACKBONE, POSITION, HEAD)

# The node copies the first P entries of each `post_memory_*` to the `pre_memory_*` of that name.
MEMORY = ("embedding", "reference_point", "timestamp", "egopose", "velo")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Ports:
    """Names and shapes of what goes into a graph and comes out of it, in order."""

    inputs: Shapes
    outputs: Shapes


@dataclass(frozen=True)
class Interface:
    """What decides the shapes.

    Attributes:
        cameras: N.
        image_size: (H, W).
        features: shape of `img_feats` and `x`: (1, N, E, h, w) for StreamPETR.
        position: shape of `pos_embed`: (1, T, E) for StreamPETR.
        cone: shape of `cone`: (1, T, 8) for StreamPETR.
        embed_dim: E.
        memory_in, memory_out: P and R.
        queries, classes: Q and K.
    """

    cameras: int
    image_size: tuple[int, int]
    features: tuple[int, ...]
    position: tuple[int, ...]
    cone: tuple[int, ...]
    embed_dim: int
    memory_in: int
    memory_out: int
    queries: int
    classes: int

    @property
    def backbone(self) -> Ports:
        """Pictures to features; for every frame."""
        pictures = (1, self.cameras, 3, *self.image_size)
        return Ports({"img": pictures}, {"img_feats": self.features})

    @property
    def position_embedding(self) -> Ports:
        """Cameras to the code of the image tokens; once for a rig."""
        matrices = (1, self.cameras, 4, 4)
        return Ports(
            {"img_metas_pad": (3,), "intrinsics": matrices, "img2lidar": matrices},
            {"pos_embed": self.position, "cone": self.cone},
        )

    @property
    def head(self) -> Ports:
        """Features, pose and memory to boxes and memory; for every frame."""
        return Ports(
            {
                "x": self.features,
                "pos_embed": self.position,
                "cone": self.cone,
                "data_ego_pose": (1, 4, 4),
                "data_ego_pose_inv": (1, 4, 4),
                **self._memory("pre", self.memory_in),
            },
            {
                "all_cls_scores": (1, self.classes, self.queries),
                "all_bbox_preds": (1, 10, self.queries),
                **self._memory("post", self.memory_out),
            },
        )

    @property
    def graphs(self) -> Mapping[str, Ports]:
        """File name -> ports of each graph, in the order of `GRAPHS`."""
        ports = (self.backbone, self.position_embedding, self.head)
        return dict(zip(GRAPHS, ports, strict=True))

    def _memory(self, prefix: str, entries: int) -> dict[str, tuple[int, ...]]:
        widths = ((self.embed_dim,), (3,), (1,), (4, 4), (2,))
        return {
            f"{prefix}_memory_{name}": (1, entries, *width)
            for name, width in zip(MEMORY, widths, strict=True)
        }
