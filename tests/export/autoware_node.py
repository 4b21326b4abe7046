"""Autoware's `autoware_camera_streampetr` as its exported graphs see it, and PyTorch beside it.

Written from the description of the node's source alone (its sections are named below), and not
from the exporter: the two agree only if both are right.

Shape letters: N cameras, H W height and width of the pictures, h w those of the features, E width
of the queries, P R entries of the memory before and after a frame, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from graph_problems import Shapes
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from streampetr_vit.structures import Frame

Arrays = dict[str, NDArray[np.float32]]

BACKBONE = "simplify_extract_img_feat.onnx"
POSITION = "simplify_position_embedding.onnx"
HEAD = "simplify_pts_head_memory.onnx"
PARAMETERS = "ml_package_camera_streampetr.param.yaml"
MEMORY = ("embedding", "reference_point", "timestamp", "egopose", "velo")

# The node's own pre-processing since #13167 (section 7).
MEAN = np.array([123.675, 116.280, 103.530], np.float32)
STD = np.array([58.395, 57.120, 57.375], np.float32)

TIE = 1e-5  # of scores: closer ones may change places


@dataclass(frozen=True)
class Dims:
    """The numbers that shapes are made of, see the shape letters."""

    N: int
    H: int
    W: int
    E: int
    P: int
    R: int
    Q: int
    K: int

    @staticmethod
    def of(cfg: Any) -> Dims:
        """Those of a recipe."""
        head = cfg.model.head
        height, width = cfg.dataloader.test.mapper.image_aug.final_size
        return Dims(
            N=len(cfg.dataset_spec.cameras),
            H=height,
            W=width,
            E=head.decoder.embed_dim,
            P=head.memory_length,
            R=head.memory_length + head.num_remembered,
            Q=head.num_queries + head.num_propagated,
            K=len(cfg.dataset_spec.classes),
        )

    def memory(self, prefix: str, length: int) -> Shapes:
        """The five tensors of the memory."""
        ends = {
            "embedding": (self.E,),
            "reference_point": (3,),
            "timestamp": (1,),
            "egopose": (4, 4),
            "velo": (2,),
        }
        return {f"{prefix}_memory_{name}": (1, length, *ends[name]) for name in MEMORY}


def tensors_of_graphs(d: Dims) -> dict[str, tuple[Shapes, Shapes]]:
    """File name -> inputs and outputs, name -> shape: sections 3 to 5. All are float32."""
    rows, columns = d.H // 16, d.W // 16
    tokens = d.N * rows * columns
    return {
        BACKBONE: (
            {"img": (1, d.N, 3, d.H, d.W)},
            {"img_feats": (1, d.N, d.E, rows, columns)},
        ),
        POSITION: (
            {"img_metas_pad": (3,), "intrinsics": (1, d.N, 4, 4), "img2lidar": (1, d.N, 4, 4)},
            {"pos_embed": (1, tokens, d.E), "cone": (1, tokens, 8)},
        ),
        HEAD: (
            {
                "x": (1, d.N, d.E, rows, columns),
                "pos_embed": (1, tokens, d.E),
                "cone": (1, tokens, 8),
                "data_ego_pose": (1, 4, 4),
                "data_ego_pose_inv": (1, 4, 4),
                **d.memory("pre", d.P),
            },
            {
                "all_cls_scores": (1, d.K, d.Q),
                "all_bbox_preds": (1, 10, d.Q),
                **d.memory("post", d.R),
            },
        ),
    }


@dataclass(frozen=True)
class Moment:
    """What the node gets of one moment.

    Attributes:
        pictures: (N, 3, H, W) uint8 RGB, resized and cropped.
        intrinsics: (N, 4, 4) float64, of these pictures.
        reference_to_camera: (N, 4, 4) float64, from the frame that boxes are wanted in.
        reference_to_map: (4, 4) float64 of that frame.
        time_s: since the epoch.
    """

    pictures: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    reference_to_camera: NDArray[np.float64]
    reference_to_map: NDArray[np.float64]
    time_s: float


class Graphs(Protocol):
    """The three engines: tensors by name in, tensors by name out."""

    def backbone(self, **inputs: NDArray[np.float32]) -> Arrays: ...

    def position(self, **inputs: NDArray[np.float32]) -> Arrays: ...

    def head(self, **inputs: NDArray[np.float32]) -> Arrays: ...


class OnnxGraphs:
    """The graphs of a folder in onnxruntime, on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.backbone, self.position, self.head = (
            _runner(folder / name) for name in (BACKBONE, POSITION, HEAD)
        )


def _runner(path: Path) -> Callable[..., Arrays]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    # Waiting threads would take the cores from PyTorch, which runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    names = [tensor.name for tensor in session.get_outputs()]

    def run(**inputs: NDArray[np.float32]) -> Arrays:
        # The node copies bytes: only the number of elements must be right.
        fed = {name: value.reshape(shapes[name]) for name, value in inputs.items()}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run


class Node:
    """The node's loop around the graphs: section 6, and what fills each input in 3 to 5.

    Args:
        graphs: the three engines.
        dims: of their tensors.
    """

    def __init__(self, graphs: Graphs, dims: Dims) -> None:
        self._graphs, self._dims = graphs, dims
        self._constants: Arrays | None = None  # position embedding, run once
        # Device memory that nobody has written to (bug #13161).
        self._mem_buf = np.full(dims.R, np.nan, np.float32)
        self._mem_buf[1::3], self._mem_buf[2::3] = np.inf, -3e38
        self.wipe()

    def wipe(self) -> None:
        """`wipe_memory`: zeros for the memory; `mem_buf` stays as it is."""
        shapes = self._dims.memory("pre", self._dims.P)
        self._pre = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def __call__(self, moment: Moment) -> Arrays:
        """All outputs of the head for the next moment."""
        if self._constants is None:
            self._start(moment)
        stamp = np.float32(moment.time_s - self._first_s)
        pose = moment.reference_to_map.copy()
        pose[:3, 3] -= self.origin_m
        pictures = moment.pictures.transpose(0, 2, 3, 1).astype(np.float32)
        image = ((pictures - MEAN) / STD).transpose(0, 3, 1, 2)[None]  # (1, N, 3, H, W)
        features = self._graphs.backbone(img=np.ascontiguousarray(image))["img_feats"]
        with np.errstate(invalid="ignore", over="ignore"):  # of memory that nobody has written to
            ages = self._mem_buf[: self._dims.P] + stamp  # StepPre
        self._pre["pre_memory_timestamp"] = ages[None, :, None]
        outputs = self._graphs.head(
            x=features,
            **self._constants,
            data_ego_pose=_float32(pose),
            data_ego_pose_inv=_float32(np.linalg.inv(pose)),
            **self._pre,
        )
        self._mem_buf = outputs["post_memory_timestamp"].reshape(-1) - stamp  # StepPost
        for name in ("embedding", "reference_point", "egopose", "velo"):
            self._pre[f"pre_memory_{name}"] = outputs[f"post_memory_{name}"][:, : self._dims.P]
        return outputs

    def _start(self, moment: Moment) -> None:
        self._first_s, self.origin_m = moment.time_s, moment.reference_to_map[:3, 3].copy()
        size = np.array([self._dims.H, self._dims.W, 3], np.float32)
        to_reference = np.linalg.inv(moment.intrinsics @ moment.reference_to_camera)
        outputs = self._graphs.position(
            img_metas_pad=size,
            intrinsics=_float32(moment.intrinsics),
            img2lidar=_float32(to_reference),
        )
        self._constants = {name: outputs[name] for name in ("pos_embed", "cone")}


def _float32(matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    return matrices[None].astype(np.float32)


@dataclass(frozen=True)
class Expected:
    """What PyTorch says of a frame, as the node's tensors.

    Attributes:
        tensors: the head's outputs by name.
        scores: (R - P,) of the queries that became the newest entries, in their order.
        boxes: (n, 9) x, y, z, l, w, h, yaw, vx, vy of what it detects, in the node's frame.
        box_scores, labels, queries: (n,) of the same.
    """

    tensors: Arrays
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.int64]


class PyTorch:
    """The detector, frame by frame, with its own memory.

    Args:
        detector: a StreamPETR in evaluation mode.
        to_node: (4, 4) from the frame of its weights to the node's.
        origin_m: (3,) where the node's map begins.
    """

    def __init__(
        self, detector: Any, to_node: NDArray[np.float64], origin_m: NDArray[np.float64]
    ) -> None:
        self._detector, self._to_node = detector, to_node
        self._shift = np.eye(4)
        self._shift[:3, 3] = -origin_m
        self.memory = detector.empty_memory(1)

    @torch.no_grad()
    def __call__(self, frame: Frame) -> Expected:
        """Steps on by a frame, whose `continues_stream` says whether the memory goes on."""
        output, after = self._detector.step(frame, self.memory)
        found, _ = self._detector.detect(frame, self.memory)
        self.memory = after
        logits, codes = output.logits[-1], output.codes[-1]  # (1, Q, K), (1, Q, 10)
        codes = _moved_codes(codes[0].double().numpy(), self._to_node)
        (detections,) = found.unpad()
        best = logits[0].sigmoid().amax(-1)
        return Expected(
            tensors={
                "all_cls_scores": logits.mT.numpy(),
                "all_bbox_preds": codes.T[None].astype(np.float32),
                **self._memory_after(frame),
            },
            scores=best[found.remembered[0]].numpy(),
            boxes=_moved_boxes(detections.boxes.double().numpy(), self._to_node),
            box_scores=detections.scores.numpy(),
            labels=detections.labels.numpy(),
            queries=detections.queries.numpy(),
        )

    def reorder(self, order: NDArray[np.int64]) -> None:
        """Puts the newest entries in another order: `order[i]` is where entry i was."""
        rows = torch.arange(self.memory.embedding.shape[1])
        rows[: len(order)] = torch.from_numpy(order)
        self.memory = self.memory.map(lambda value: value[:, rows])

    def _memory_after(self, frame: Frame) -> Arrays:
        memory = self.memory
        age_s = memory.time_s + frame.timestamp_s[:, None, None]
        values = {
            "embedding": memory.embedding,
            "reference_point": memory.center_m + torch.from_numpy(self._shift[:3, 3]),
            "timestamp": age_s,
            # An entry that was never filled has no pose, not even one at the origin.
            "egopose": torch.from_numpy(self._shift) @ memory.pose,
            "velo": memory.velocity_mps,
        }
        return {f"post_memory_{name}": value.float().numpy() for name, value in values.items()}


def _turned(xy: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[Any]:
    """(n, 2) vectors turned by the yaw of a pose."""
    yaw = np.arctan2(matrix[1, 0], matrix[0, 0])
    c, s = np.cos(yaw), np.sin(yaw)
    return xy @ np.array([[c, s], [-s, c]])


def _moved_codes(codes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, 10) codes in another frame: section 8."""
    moved = codes.copy()
    moved[:, :3] = codes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    moved[:, [7, 6]] = _turned(codes[:, [7, 6]], matrix)
    moved[:, 8:10] = _turned(codes[:, 8:10], matrix)
    return moved


def _moved_boxes(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 9) boxes in another frame."""
    moved = boxes.copy()
    moved[:, :3] = boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    moved[:, 6] += np.arctan2(matrix[1, 0], matrix[0, 0])
    moved[:, 7:9] = _turned(boxes[:, 7:9], matrix)
    return moved


def box_difference(outputs: Mapping[str, NDArray[np.float32]], expected: Expected) -> float:
    """The largest difference between the node's boxes (section 5) and those that PyTorch decodes.

    The node takes the best class of a query only. Sizes are compared by their logarithm, and yaws
    times the length of (sin, cos), below which a direction says little.
    """
    logits, codes = outputs["all_cls_scores"][0], outputs["all_bbox_preds"][0]
    if logits.shape[1] != codes.shape[1] or expected.queries.max() >= logits.shape[1]:
        return float("inf")
    of_node = logits.argmax(0)[expected.queries] == expected.labels
    if not of_node.any():
        return float("inf")
    queries, boxes = expected.queries[of_node], expected.boxes[of_node]
    codes, scores = codes[:, queries], 1 / (1 + np.exp(-logits.max(0)[queries]))
    turn = boxes[:, 6] - np.arctan2(codes[6], codes[7])
    turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi) * np.hypot(codes[6], codes[7])
    rest = (
        codes[:3].T - boxes[:, :3],
        codes[3:6].T - np.log(boxes[:, 3:6]),
        codes[8:10].T - boxes[:, 7:9],
        scores - expected.box_scores[of_node],
        turn,
    )
    return max(float(np.abs(part).max()) for part in rest)


def order_of_new(
    found: Mapping[str, NDArray[np.float32]], expected: Expected
) -> tuple[NDArray[np.int64], list[str]]:
    """Which of PyTorch's newest entries each of the node's is.

    Returns:
        (R - P,) places in PyTorch's memory, and a line for each entry that stands elsewhere without
        a tie of scores.
    """
    new = len(expected.scores)
    names = ("post_memory_embedding", "post_memory_reference_point")
    ours, theirs = (
        np.concatenate([np.nan_to_num(t[name][0, :new], nan=1e9) for name in names], axis=1)
        for t in (expected.tensors, found)
    )
    distance = np.abs(theirs[:, None] - ours[None]).max(-1)  # (new, new)
    order = linear_sum_assignment(distance)[1]
    scores = expected.scores
    wrong = [
        f"entry {i} is entry {j} of PyTorch's memory: scores {scores[i]:.6f}, {scores[j]:.6f}"
        for i, j in enumerate(order)
        if i != j and not abs(scores[i] - scores[j]) <= TIE
    ]
    return order, wrong


def differences(
    found: Mapping[str, NDArray[np.float32]], expected: Expected, order: NDArray[np.int64]
) -> dict[str, float]:
    """The largest difference of each tensor; NaN where there is one, infinity for another size."""
    result = {}
    for name, wanted in expected.tensors.items():
        if name.startswith("post_memory"):
            rows = np.arange(wanted.shape[1])
            rows[: len(order)] = order
            wanted = wanted[:, rows]
        given = found[name]
        same = given.size == wanted.size
        result[name] = (
            float(np.abs(given.reshape(wanted.shape) - wanted).max()) if same else float("inf")
        )
    return result
