"""Six moments of a synthetic scene for the node and for PyTorch, with a wipe in their middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from autoware_node import (
    Arrays,
    Dims,
    Expected,
    Graphs,
    Moment,
    Node,
    PyTorch,
    box_difference,
    differences,
    order_of_new,
)
from numpy.typing import NDArray

from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.engine import build_model
from streampetr_vit.structures import CameraRig, Frame, Pose

LENGTH, WIPED_BEFORE = 6, 3

# Where the weights' frame is on the vehicle, as nuScenes' lidar but tilted by two degrees.
REFERENCE = Pose(np.array([0.94, -0.07, 1.84]), np.array([0.70700, -0.01234, 0.01234, -0.70700]))
# The car drives far from the origin of its map, and not along an axis of it.
MAP = Pose(np.array([412_345.678, 5_412_345.678, 312.5]), np.array([0.92, 0.01, -0.02, 0.39]))


def write_weights(cfg: Any, folder: Path) -> Path:
    """Writes random weights of a recipe's model, where no layer is zero; returns their file."""
    torch.manual_seed(0)
    model = build_model(cfg)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    spread_queries(model)
    length = np.linalg.norm(REFERENCE.rotation_wxyz)
    turn = (REFERENCE.rotation_wxyz / length).tolist()
    model.reference_to_vehicle = [*REFERENCE.translation_m.tolist(), *turn]
    model.frame_period_s = 0.5
    folder.mkdir(parents=True, exist_ok=True)
    SafeCheckpointer(model, str(folder)).save("random")
    return folder / "random.pth"


@torch.no_grad()
def spread_queries(detector: Any) -> None:
    """Takes the boxes and scores of an untrained detector apart, so that few scores tie."""
    for branch in (detector.head.class_branch, detector.head.box_branch):
        branch[-1].weight.mul_(5)


def make_frames(data: Path, image_aug: ImageAugmentation) -> list[Frame]:
    """The scene as the detector gets it, in the frame of `REFERENCE`."""
    records = load_split(data, "v1.0-mini", "mini_val")
    mapper = NuScenesMapper(training=False, image_aug=image_aug)
    to_ego, frames = torch.from_numpy(REFERENCE.matrix()), []
    for time in range(LENGTH):
        sample = mapper(records[time])
        assert sample.lidar_to_ego is not None and sample.ego_to_global is not None
        to_lidar = torch.from_numpy(sample.lidar_to_ego.inverse_matrix()) @ to_ego
        to_camera = sample.lidar_to_camera.double() @ to_lidar
        intrinsics = sample.intrinsics.double()
        pose = torch.from_numpy(MAP.matrix() @ sample.ego_to_global.matrix()) @ to_ego
        changed = replace(
            sample,
            lidar_to_camera=to_camera,
            lidar_to_image=intrinsics @ to_camera,
            lidar_to_global=pose,
            global_to_lidar=torch.linalg.inv(pose),
            timestamp_s=sample.timestamp_s + 0.003 * time**2,  # not of one rate
            continues_stream=torch.tensor(time not in (0, WIPED_BEFORE)),
        )
        frames.append(Frame.collate([changed]))
    # The node takes its calibration once.
    return [replace(frame, rig=frames[0].rig) for frame in frames]


def moment_of(frame: Frame, to_node: NDArray[np.float64]) -> Moment:
    """A frame as the node gets it; `to_node` leads from the frame of the weights to the node's."""
    back = np.linalg.inv(to_node)
    return Moment(
        pictures=frame.images[0].numpy(),
        intrinsics=frame.rig.intrinsics[0].double().numpy(),
        reference_to_camera=frame.rig.lidar_to_camera[0].double().numpy() @ back,
        reference_to_map=frame.lidar_to_global[0].numpy() @ back,
        time_s=float(frame.timestamp_s),
    )


@dataclass(frozen=True)
class Step:
    """The node and PyTorch after a frame.

    Attributes:
        found, expected: what they say.
        misplaced: see `order_of_new`.
        differences: see there; with "boxes", see `box_difference`.
    """

    found: Arrays
    expected: Expected
    misplaced: list[str]
    differences: dict[str, float]

    def worst(self) -> float:
        """The largest difference of all tensors; infinity for NaN or a misplaced entry."""
        values = np.array([*self.differences.values(), *(np.inf for _ in self.misplaced)])
        return float(np.nan_to_num(values, nan=np.inf).max())


def drive(
    graphs: Graphs,
    detector: Any,
    dims: Dims,
    frames: Sequence[Frame],
    to_node: NDArray[np.float64],
) -> list[Step]:
    """Plays the frames to the node and to PyTorch, side by side."""
    node, steps = Node(graphs, dims), []
    moments = [moment_of(frame, to_node) for frame in frames]
    pytorch = PyTorch(detector, to_node, moments[0].reference_to_map[:3, 3])
    for time, (moment, frame) in enumerate(zip(moments, frames, strict=True)):
        if time == WIPED_BEFORE:
            node.wipe()
        found, expected = node(moment), pytorch(frame)
        order, misplaced = order_of_new(found, expected)
        compared = differences(found, expected, order)
        compared["boxes"] = box_difference(found, expected)
        steps.append(Step(found, expected, misplaced, compared))
        # The next frame's queries follow the memory: both must go on in the same order.
        pytorch.reorder(order)
    return steps


class StandIn:
    """Graphs that are right, made of the detector itself, to try the node and the checks on.

    The features are the pictures, and what is computed once is the calibration.

    Args:
        detector: a StreamPETR in evaluation mode.
        to_node: (4, 4) from the frame of its weights to the node's.
    """

    def __init__(self, detector: Any, to_node: NDArray[np.float64]) -> None:
        self.detector = detector
        self.to_node = torch.from_numpy(to_node)
        self.from_node = torch.linalg.inv(self.to_node)

    def backbone(self, img: NDArray[np.float32]) -> Arrays:
        return {"img_feats": img}

    def position(
        self,
        img_metas_pad: NDArray[np.float32],
        intrinsics: NDArray[np.float32],
        img2lidar: NDArray[np.float32],
    ) -> Arrays:
        image_to_lidar = self.from_node @ torch.from_numpy(img2lidar).double()
        return {"pos_embed": image_to_lidar.float().numpy(), "cone": intrinsics}

    @torch.no_grad()
    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        given = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}
        pose = given["data_ego_pose"].double() @ self.to_node
        frame = Frame(
            images=given["x"],
            rig=self.rig(given["pos_embed"], given["cone"]),
            lidar_to_global=pose,
            global_to_lidar=self.from_node @ given["data_ego_pose_inv"].double(),
            timestamp_s=torch.zeros(1, dtype=torch.float64),
            continues_stream=self.continues(given),
        )
        output, after = self.detector.step(frame, self.memory(given))
        return {
            "all_cls_scores": self.scores(output.logits[-1]),
            "all_bbox_preds": self.codes(output.codes[-1]).mT.numpy(),
            **self.memory_after(after),
        }

    def rig(self, image_to_lidar: torch.Tensor, intrinsics: torch.Tensor) -> CameraRig:
        lidar_to_image = torch.linalg.inv(image_to_lidar.double())
        to_camera = torch.linalg.inv(intrinsics.double()) @ lidar_to_image
        return CameraRig(lidar_to_image.float(), intrinsics, to_camera.float())

    def continues(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return given["pre_memory_egopose"][:, 0, 3, 3] > 0.5

    def memory(self, given: dict[str, torch.Tensor]) -> Any:
        return replace(
            self.detector.empty_memory(1),
            embedding=given["pre_memory_embedding"],
            center_m=given["pre_memory_reference_point"].double(),
            time_s=given["pre_memory_timestamp"].double(),
            pose=given["pre_memory_egopose"].double(),
            velocity_mps=given["pre_memory_velo"],
        )

    def scores(self, logits: torch.Tensor) -> NDArray[np.float32]:
        return logits.mT.numpy()

    def codes(self, codes: torch.Tensor) -> torch.Tensor:
        moved, matrix = codes.clone(), self.to_node.float()
        moved[..., :3] = codes[..., :3] @ matrix[:3, :3].mT + matrix[:3, 3]
        c, s = torch.nn.functional.normalize(matrix[:2, 0], dim=0)
        for x, y in ((7, 6), (8, 9)):
            moved[..., x] = c * codes[..., x] - s * codes[..., y]
            moved[..., y] = s * codes[..., x] + c * codes[..., y]
        return moved

    def memory_after(self, memory: Any) -> Arrays:
        values = {
            "embedding": memory.embedding,
            "reference_point": memory.center_m,
            "timestamp": memory.time_s,
            "egopose": memory.pose,
            "velo": memory.velocity_mps,
        }
        return {f"post_memory_{name}": value.float().numpy() for name, value in values.items()}
