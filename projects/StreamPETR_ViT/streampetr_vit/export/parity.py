"""How far exported graphs are from the detector, over a stream of made-up frames.

The graphs run as Autoware's node runs them, and the detector beside them as in training.

Shape letters: N cameras, H W picture in pixels, Q queries, M R entries of the memory before and
after a frame, K new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.export.interface import MEMORY
from streampetr_vit.export.node import Node
from streampetr_vit.export.runner import taken_queries
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.ops.geometry import matrix_product, transform_points
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import CameraRig, Frame

NUM_FRAMES, WIPED_AFTER = 6, 3
TOLERANCE = 1e-4  # of float32, in metres, seconds, m/s and logits
WRONG = 1e-2  # no rounding of float32 leads so far
_PERIOD_S, _SPEED_MPS, _TURN_RAD = 0.5, 8.0, 0.06
_START_M, _START_S = (1200.0, 640.0, 0.0), 1.5e9  # on the map, and since the epoch


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between graphs and detector.

    Attributes:
        by_frame: of each frame, name -> difference: "logits", "codes" and the five memories.
        swaps: new entries of the memory that stand in each other's place, because the scores of
            their queries are equal but for rounding.
    """

    by_frame: tuple[Mapping[str, float], ...]
    swaps: int

    @property
    def largest(self) -> dict[str, float]:
        """Name -> difference in the worst frame."""
        return {name: max(frame[name] for frame in self.by_frame) for name in self.by_frame[0]}


@torch.no_grad()
def measure(detector: StreamPETR, sessions: Sessions, seed: int = 0) -> Parity:
    """Runs six frames through both, with a wipe of the memory after the third.

    Args:
        detector: that was exported, in evaluation mode, on the CPU.
        sessions: of its graphs.

    Raises:
        InputError: the two do not remember the same queries.
    """
    said, interface = sessions.description, sessions.interface
    lidar_to_graph = said.lidar_to_graph_matrix()
    node, memory = Node(sessions), detector.empty_memory(1)
    by_frame, swaps = [], 0
    # The detector's entry for each entry of the node's memory, the same but for swaps. Queries that
    # come of the memory are swapped with it in the next frame.
    entries = torch.arange(interface.memory_out)
    learned = torch.arange(said.num_queries)
    for number, frame in enumerate(made_frames(interface.cameras, interface.image_size, seed)):
        if number == WIPED_AFTER:
            node.wipe()
        if not frame.continues_stream:
            entries = torch.arange(len(entries))
        before = entries[: interface.memory_in]
        propagated = before[: interface.queries - len(learned)]
        queries = torch.cat((learned, len(learned) + propagated))
        memory = memory.map(lambda value: value[:, : interface.memory_in])
        output, memory = detector.step(frame, memory)
        found = _run(node, frame, lidar_to_graph)
        map_to_graph = np.linalg.inv(_ego_pose(frame, lidar_to_graph))
        entries, moved = _entries(found, output, queries, before, map_to_graph)
        by_frame.append(
            _differences(found, output, memory, frame, lidar_to_graph, queries, entries)
        )
        swaps += moved
    return Parity(tuple(by_frame), swaps)


def made_frames(cameras: int, image_size: tuple[int, int], seed: int) -> Iterator[Frame]:
    """Six frames of a car that goes straight on and turns, with coloured noise in all cameras.

    A stream starts with the first frame, and again after `WIPED_AFTER`.
    """
    generator = torch.Generator().manual_seed(seed)
    rig = _made_rig(cameras, image_size)
    for number in range(NUM_FRAMES):
        # Noise of several sizes: white noise is the same grey to every token.
        images = torch.zeros(cameras, 3, *image_size)
        for cell in (4, 16, 64):
            size = [max(side // cell, 2) for side in image_size]
            noise = torch.randn(cameras, 3, *size, generator=generator)
            images += torch.nn.functional.interpolate(noise, image_size, mode="bilinear")
        yaw = _TURN_RAD * number
        lidar_to_global = torch.eye(4, dtype=torch.float64)
        lidar_to_global[:2, :2] = torch.tensor(
            [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]], dtype=torch.float64
        )
        way = _SPEED_MPS * _PERIOD_S * number
        lidar_to_global[:3, 3] = torch.tensor(_START_M, dtype=torch.float64)
        lidar_to_global[1, 3] += way
        yield Frame(
            images=images[None],
            rig=rig,
            lidar_to_global=lidar_to_global[None],
            global_to_lidar=torch.linalg.inv(lidar_to_global)[None],
            timestamp_s=torch.tensor([_START_S + _PERIOD_S * number], dtype=torch.float64),
            continues_stream=torch.tensor([number not in (0, WIPED_AFTER)]),
        )


def _made_rig(cameras: int, image_size: tuple[int, int]) -> CameraRig:
    """Cameras that look outwards at equal angles, 1 m around the lidar and 0.3 m below it."""
    height, width = image_size
    intrinsics = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.7 * width
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    poses = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    for index in range(cameras):
        yaw = 2 * math.pi * index / cameras
        ahead = torch.tensor([math.cos(yaw), math.sin(yaw), 0.0], dtype=torch.float64)
        right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0], dtype=torch.float64)
        down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
        rotation = torch.stack((right, down, ahead))  # lidar to camera
        poses[index, :3, :3] = rotation
        poses[index, :3, 3] = -(rotation * (ahead + 0.3 * down)).sum(-1)
    projections = matrix_product(intrinsics, poses)  # (N, 4, 4)
    return CameraRig(*(value.float()[None] for value in (projections, intrinsics, poses)))


def _ego_pose(frame: Frame, lidar_to_graph: np.ndarray) -> np.ndarray:
    """(4, 4) pose of the graphs' frame on a map that begins where the first lidar frame is."""
    lidar_to_map = frame.lidar_to_global[0].numpy().copy()
    lidar_to_map[:3, 3] -= _START_M
    return lidar_to_map @ np.linalg.inv(lidar_to_graph)


def _run(node: Node, frame: Frame, lidar_to_graph: np.ndarray) -> dict[str, Tensor]:
    """What the node finds in a frame, in the frame that the graphs speak of."""
    lidar_to_image = frame.rig.lidar_to_image[0].double().numpy()  # (N, 4, 4)
    image_to_graph = np.stack([lidar_to_graph @ np.linalg.inv(p) for p in lidar_to_image])
    found = node(
        frame.images.numpy(),
        frame.rig.intrinsics.numpy(),
        image_to_graph[None].astype(np.float32),
        _ego_pose(frame, lidar_to_graph),
        float(frame.timestamp_s[0]) - _START_S,
    )
    return {name: torch.from_numpy(value) for name, value in found.items()}


def _entries(
    found: Mapping[str, Tensor],
    output: HeadOutput,
    queries: Tensor,
    before: Tensor,
    map_to_graph: np.ndarray,
) -> tuple[Tensor, int]:
    """(R,) the detector's entry for each of the node's memory, and how many new ones are swapped.

    Args:
        found: of the node.
        output: of the detector.
        queries: (Q,) the detector's query for each query of the node.
        before: (M,) the same for the entries that the frame has seen.
        map_to_graph: (4, 4) from the node's map to the frame that the graphs speak of.
    """
    remembered = output.remembered[0]  # (K,)
    points = found["post_memory_reference_point"][:, : len(remembered)].double()
    taken = taken_queries(
        found["all_cls_scores"].mT,
        found["all_bbox_preds"].mT[..., :3].double(),
        transform_points(points, torch.from_numpy(map_to_graph)),
    )
    same = queries[taken[0], None] == remembered  # (K, K)
    if not same.any(1).all():
        raise InputError(
            "graphs and detector do not remember the same queries, so that they cannot be compared "
            "further: two of the scores at the end of the memory are equal but for rounding, or "
            "the graphs are not those of this detector"
        )
    newest = same.int().argmax(1)
    moved = int((newest != torch.arange(len(newest))).sum())
    return torch.cat((newest, len(newest) + before)), moved


def _moved(codes: Tensor, lidar_to_graph: np.ndarray) -> Tensor:
    """Box codes (1, Q, 10) of the lidar frame in the graphs' frame.

    In another way than the graphs do it, so that a fault there shows: by complex numbers.
    """
    matrix = torch.from_numpy(lidar_to_graph)
    turn = torch.complex(matrix[0, 0], matrix[1, 0])
    turn = turn / turn.abs()
    heading = torch.complex(codes[..., 7].double(), codes[..., 6].double()) * turn
    velocity = torch.view_as_complex(codes[..., 8:].double().contiguous()) * turn
    center = codes[..., :3].double() @ matrix[:3, :3].T + matrix[:3, 3]
    yaw = torch.stack((heading.imag, heading.real), dim=-1)
    return torch.cat((center, codes[..., 3:6], yaw, torch.view_as_real(velocity)), dim=-1)


def _differences(
    found: Mapping[str, Tensor],
    output: HeadOutput,
    memory: TemporalMemory,
    frame: Frame,
    lidar_to_graph: np.ndarray,
    queries: Tensor,
    entries: Tensor,
) -> dict[str, float]:
    """Largest difference of each kind.

    Args:
        found: of the node.
        output, memory: of the detector.
        queries: (Q,) the detector's query for each query of the node.
        entries: (R,) the detector's entry for each of the node's memory.
    """
    start = torch.tensor(_START_M, dtype=torch.float64)
    pose = memory.pose.clone()
    pose[..., :3, 3] -= start * pose[..., 3:, 3]  # entries that were never filled are zeros
    pairs = {
        "logits": (found["all_cls_scores"].mT, output.logits[-1][:, queries]),
        "codes": (
            found["all_bbox_preds"].mT,
            _moved(output.codes[-1], lidar_to_graph)[:, queries],
        ),
    }
    # In the order of `MEMORY`, as the node has them: ages, and places on its map.
    wanted = (
        memory.embedding,
        memory.center_m - start,
        memory.time_s + frame.timestamp_s[:, None, None],
        pose,
        memory.velocity_mps,
    )
    for name, value in zip(MEMORY, wanted, strict=True):
        pairs[name] = found[f"post_memory_{name}"], value[:, entries]
    return {
        # A NaN in either is a difference that no tolerance allows.
        name: float((ours - theirs).abs().max().nan_to_num(nan=math.inf))
        for name, (ours, theirs) in pairs.items()
    }
