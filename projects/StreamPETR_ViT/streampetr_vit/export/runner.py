"""The detector of inference, by three exported graphs in place of PyTorch.

Shape letters: B streams, N cameras, H W picture in pixels, M entries of the memory, K new entries
of a frame, Q queries, E channels.

Frames: the graph frame is the one that the graphs speak of, see `Description.frame`. The graphs
compute in float32, which is too coarse for places on a map. So what they take for the global frame
is here the lidar frame of the moment; the way to the map and back is computed outside, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.export.frames import moved_codes, yaw_of
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.modeling.heads.box_coding import decode_padded
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.image.normalization import normalized
from streampetr_vit.modeling.ops.geometry import (
    image_to_lidar_of,
    matrix_product,
    transform_points,
)
from streampetr_vit.modeling.temporal.memory import (
    NO_LINEAGE,
    TemporalMemory,
    align,
    best_queries,
)
from streampetr_vit.structures import CameraRig, Frame, PaddedDetections, invert_rigid

WITHOUT_A_CAMERA = (
    "a moment without one of its cameras needs the detector in PyTorch (run, or config and weights)"
)
# Metres and m/s: farther than this from a query, an entry of the memory is another one.
_SAME = 1e-3


@dataclass(frozen=True)
class PositionCode:
    """What the position graph says of a rig: for each of B streams, two inputs of the head."""

    pos_embed: Sequence[np.ndarray]
    cone: Sequence[np.ndarray]


class OnnxDetector:
    """Runs frames through exported graphs, as `modeling.StreamPETR` does in PyTorch.

    It takes and gives tensors on the CPU, wherever onnxruntime computes.

    Args:
        sessions: of one export.
    """

    training = False
    device = torch.device("cpu")

    def __init__(self, sessions: Sessions) -> None:
        said = sessions.description
        self.sessions, self.description = sessions, said
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1) for values in (said.pixel_mean, said.pixel_std)
        )
        self._center_range = torch.tensor(said.center_range)
        self._lidar_to_graph = torch.from_numpy(said.lidar_to_graph_matrix())
        self._graph_to_lidar = invert_rigid(self._lidar_to_graph)
        self._yaw = [value.float() for value in yaw_of(self._lidar_to_graph)]
        self._poses = {
            "data_ego_pose": _array(self._graph_to_lidar[None]),
            "data_ego_pose_inv": _array(self._lidar_to_graph[None]),
        }

    @property
    def memory_length(self) -> int:
        """Entries M that a frame sees."""
        return self.sessions.interface.memory_in

    @property
    def fixed_cameras(self) -> int:
        """Cameras that every frame must have."""
        return self.sessions.interface.cameras

    @property
    def num_frame_queries(self) -> int:
        """Q, learned and propagated."""
        return self.sessions.interface.queries

    @property
    def max_detections(self) -> int:
        """Detections of a frame at most."""
        return self.description.max_detections

    def empty_memory(self, batch: int) -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""
        return TemporalMemory.empty(batch, self.memory_length, self.sessions.interface.embed_dim)

    def padded_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The same size: the graphs do not pad."""
        return image_size

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> PositionCode:
        """Runs the position graph for each of B rigs.

        Raises:
            InputError: the graphs are for another number of cameras, or other pictures.
        """
        self._check(rig.intrinsics.shape[1], image_size)
        image_to_lidar = image_to_lidar_of(rig.lidar_to_image)  # (B, N, 4, 4)
        image_to_graph = _array(matrix_product(self._lidar_to_graph, image_to_lidar))
        size, intrinsics = np.array([*image_size, 3], np.float32), _array(rig.intrinsics)
        codes = [
            self.sessions.position(size, intrinsics[row : row + 1], image_to_graph[row : row + 1])
            for row in range(len(intrinsics))
        ]
        positions, cones = zip(*codes, strict=True)
        return PositionCode(positions, cones)

    @torch.no_grad()
    def detect(
        self, frame: Frame, memory: TemporalMemory, rig_code: PositionCode
    ) -> tuple[PaddedDetections, TemporalMemory]:
        """Detections, and the memory for the next frame.

        Args:
            frame: of B streams; each runs by itself, one after the other.
            memory: as the previous call returned it, or `empty_memory`.
            rig_code: of `encode_rig` for the frame's rig.

        Raises:
            InputError: the graphs are for another number of cameras, or other pictures; or the head
                gives a memory that is not of its own queries.
        """
        self._check(frame.images.shape[1], frame.image_size)
        # All zeros where a stream starts: by this the graph knows, and takes its own start points.
        aligned = align(
            memory,
            self.memory_length,
            frame.continues_stream,
            frame.global_to_lidar,
            frame.timestamp_s,
            start_points_m=self._center_range.new_empty(0, 3),
        )
        rows = range(len(frame.images))
        found = _stacked([self._run(frame.images, aligned, rig_code, row) for row in rows])
        codes = self._codes_in_lidar(found["all_bbox_preds"].mT)
        output = self._output(found, codes, aligned.lineage)
        detections = decode_padded(
            output,
            self.description.max_detections,
            self._center_range,
            self.description.score_threshold,
        )
        return detections, self._remembered(found, output, aligned.lineage, frame)

    def _check(self, cameras: int, image_size: tuple[int, int]) -> None:
        interface = self.sessions.interface
        if (cameras, image_size) == (interface.cameras, interface.image_size):
            return
        given = f"{cameras} of {image_size[0]}x{image_size[1]} pixels"
        wanted = f"{interface.cameras} of {interface.image_size[0]}x{interface.image_size[1]}"
        raise InputError(
            f"the pictures of this moment are {given}, and those of the exported graphs {wanted}, "
            f"which is fixed: give a picture of each camera in that size; {WITHOUT_A_CAMERA}"
        )

    def _run(
        self, images: Tensor, aligned: TemporalMemory, rig_code: PositionCode, row: int
    ) -> dict[str, Tensor]:
        """The head's outputs for one stream."""

        def of_row(value: Tensor) -> np.ndarray:
            return _array(value[row : row + 1])

        pictures = normalized(
            images[row : row + 1], self._mean, self._std, self.description.input_format
        )
        features = self.sessions.backbone(_array(pictures))
        found = self.sessions.head(
            x=features,
            pos_embed=rig_code.pos_embed[row],
            cone=rig_code.cone[row],
            **self._poses,
            pre_memory_embedding=of_row(aligned.embedding),
            pre_memory_reference_point=of_row(aligned.center_m),
            pre_memory_timestamp=of_row(aligned.time_s),
            pre_memory_egopose=of_row(aligned.pose),
            pre_memory_velo=of_row(aligned.velocity_mps),
        )
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def _codes_in_lidar(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, 10) of boxes in the graphs' frame -> in the lidar frame."""
        # Back by the yaw that the graphs have turned them by. It is not that of the inverse where
        # the lidar is tilted.
        cos, sin = self._yaw
        return moved_codes(codes, self._graph_to_lidar, cos, -sin)

    def _output(self, found: Mapping[str, Tensor], codes: Tensor, lineage: Tensor) -> HeadOutput:
        """What the head says, as PyTorch's says it; the states stay in the graph.

        Args:
            found: outputs of the graph.
            codes: (B, Q, 10), lidar frame.
            lineage: (B, M) of the memory before the frame.
        """
        logits = found["all_cls_scores"].mT  # (B, K, Q) -> (B, Q, K)
        learned = self.description.num_queries
        propagated = lineage[:, : self.num_frame_queries - learned]
        count = self.description.num_remembered
        entries = (found["post_memory_reference_point"], found["post_memory_velo"])
        return HeadOutput(
            logits=logits[None],
            codes=codes[None],
            states=codes.new_empty(1, *codes.shape[:2], 0),
            lineage=F.pad(propagated, (learned, 0), value=NO_LINEAGE),
            remembered=taken_queries(
                logits,
                torch.cat((codes[..., :3], codes[..., -2:]), dim=-1),
                torch.cat(entries, dim=-1)[:, :count],
            ),
        )

    def _remembered(
        self, found: Mapping[str, Tensor], output: HeadOutput, lineage: Tensor, frame: Frame
    ) -> TemporalMemory:
        """The memory in the global frame, newest entries first, as `memory.push` leaves it."""
        lidar_to_global = frame.lidar_to_global.double()
        newest = output.lineage.gather(1, output.remembered)  # (B, Q) -> (B, K)
        return TemporalMemory(
            embedding=found["post_memory_embedding"],
            center_m=transform_points(found["post_memory_reference_point"], lidar_to_global),
            time_s=found["post_memory_timestamp"].double() - frame.timestamp_s[:, None, None],
            pose=matrix_product(lidar_to_global[:, None], found["post_memory_egopose"]),
            velocity_mps=found["post_memory_velo"],
            lineage=torch.cat((newest, lineage), dim=1),
        )


def taken_queries(logits: Tensor, queries: Tensor, entries: Tensor) -> Tensor:
    """(B, K) int64, the query that each new entry of a memory was, which no output says.

    Args:
        logits: (B, Q, classes).
        queries: (B, Q, n) what tells the queries apart, such as centres and velocities, in metres
            and m/s.
        entries: (B, K, n) of the entries, in the same frame.

    Raises:
        InputError: an entry is none of the queries.
    """
    # The head takes the best by the best class. Where two are equally good, it may have taken them
    # the other way around: what an entry holds decides then.
    best = best_queries(logits.sigmoid().amax(-1), entries.shape[1])
    taken = queries.gather(1, best[..., None].expand(-1, -1, queries.shape[-1]))
    # NaN is not greater: a network that gives no numbers is for the caller to notice.
    for row, entry in ((taken - entries).abs().amax(-1) > _SAME).nonzero().tolist():
        far = (queries[row] - entries[row, entry]).abs().amax(-1)  # (Q,)
        if (nearest := far.min()) > _SAME:
            raise InputError(
                f"entry {entry} of the head's memory is {nearest:.3g} (m, m/s) from every query of "
                "the frame: these graphs do not keep the memory as this version does; export them "
                "anew with tools/export_onnx.py"
            )
        best[row, entry] = far.argmin()
    return best


def _array(value: Tensor) -> np.ndarray:
    """As a graph takes it: float32, in one piece."""
    return value.float().contiguous().numpy()


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """B times {name: (1, ...)} -> {name: (B, ...)}."""
    if len(rows) == 1:
        return rows[0]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
