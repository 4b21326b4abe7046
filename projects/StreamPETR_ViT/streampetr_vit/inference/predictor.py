"""From the pictures of a car's cameras to 3D boxes, moment after moment.

Shape letters: B cars, M entries of the memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.sound_boxes import sound_boxes
from streampetr_vit.inference.batching import alike, joined, naming_car, parted
from streampetr_vit.inference.continuity import MAX_GAP_S, Drive, Step, follow, tell
from streampetr_vit.inference.exported import load_exported, refuse_pytorch_options
from streampetr_vit.inference.frame_step import FrameStep
from streampetr_vit.inference.loading import LoadedDetector, load_detector
from streampetr_vit.inference.pictures import PictureMaker
from streampetr_vit.inference.predictor_options import check_names, check_seconds
from streampetr_vit.inference.predictor_state import read_state, write_state
from streampetr_vit.inference.preparation import Preparation, Prepared
from streampetr_vit.inference.tracking import named_by, track
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame, Moment, Objects, Pose, Rig
from streampetr_vit.structures.moment import Picture
from streampetr_vit.structures.tensors import tensors_of
from streampetr_vit.tracking.building import Rules, build_tracker
from streampetr_vit.tracking.table import TrackTable

logger = logging.getLogger(__name__)

_MOST_STEPS = 8  # what is kept for a rig takes tens of megabytes of a large network


@dataclass(frozen=True)
class FoundByNetwork:
    """What the network has found in the moment of one car.

    Attributes:
        detections: on the CPU.
        memory: (1, M, ...) for the next moment.
        remembered: (1, K), see `PaddedDetections`.
    """

    detections: Detections
    memory: TemporalMemory
    remembered: Tensor


class Predictor:
    """Detects the objects around a car, or around several, and remembers what it has seen.

    A scene begins anew where the time goes back or jumps, or the pose jumps as no car can; `reset`
    begins one in any case. Where moments come faster than those of the training, every one is
    detected in, and the memory takes the nearest to each `frame_period_s`.

    One thread at a time may call it, except for `prepare`, which any number may.

    Args:
        loaded: the detector and what belongs to it.
        max_gap_s: a longer time between two moments begins a scene. The memory of released weights
            reaches back 2 s.
        frame_period_s: time between moments that the memory takes; None takes that of the training,
            0 takes every moment.
        allow_missing_cameras: a moment may leave out cameras of its rig. A camera whose picture is
            None is left out in any case.
        on_bad_image: "raise", or "count", which leaves a camera with a broken file out of the
            moment, with a log line.
        channel_order: "rgb" or "bgr", of pictures that are arrays.
        tracker: "lineage" or "greedy", or the rules of one, gives objects ids (docs/tracking.md);
            None leaves them out. No id is given twice before a `reset`.
        cuda_graph: capture the frame in a CUDA graph and replay it.

    Raises:
        InputError: an option has a value that is not allowed.
    """

    def __init__(
        self,
        loaded: LoadedDetector,
        *,
        max_gap_s: float = MAX_GAP_S,
        frame_period_s: float | None = None,
        allow_missing_cameras: bool = False,
        on_bad_image: str = "raise",
        channel_order: str = "rgb",
        tracker: str | Rules | None = None,
        cuda_graph: bool = False,
    ) -> None:
        period_s = loaded.frame_period_s if frame_period_s is None else frame_period_s
        check_seconds(max_gap_s, period_s)
        self.loaded, self.max_gap_s, self.frame_period_s = loaded, max_gap_s, period_s
        self._cuda_graph = cuda_graph
        self._tracker = None if tracker is None else build_tracker(tracker, loaded.spec)
        self._preparation = Preparation(
            PictureMaker(loaded.image_aug, channel_order),
            loaded.reference_to_vehicle,
            allow_missing_cameras,
            on_bad_image,
            loaded.detector.fixed_cameras,
        )
        self.reset()

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str] | None = None,
        *,
        config: Any = None,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        ema: bool = False,
        trusted: Sequence[str] = (),
        onnx: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Predictor:
        """A predictor with the weights of a run's folder, or of a recipe and a file, or exported.

        Args:
            run: folder that a training has written.
            config: recipe (.py), or config.yaml of a run; with `weights`, in place of `run`.
            weights: the file. With `run`: another one than the last checkpoint.
            device: "auto" (the GPU if there is one), "cpu", "cuda" or "cuda:N".
            precision: "auto" (bf16 on a GPU that has it, else float32), "float32", "bf16", "fp16".
            ema: take the moving average of the weights.
            trusted: packages that a YAML file may call beside those that recipes use.
            onnx: folder of exported graphs, which onnxruntime runs on the CPU, or on a GPU with
                device="cuda"; in place of all before but `device` and `trusted`.
            options: of the predictor, see the class.

        Raises:
            UserError: a file is missing, damaged, or not of this detector; or see `InputError`.
        """
        check_names(cls, options)  # now: to load a large detector takes a while
        if onnx is not None:
            refuse_pytorch_options(
                run=run,
                config=config,
                weights=weights,
                ema=ema,
                precision=precision,
                cuda_graph=options.get("cuda_graph", False),
            )
            return cls(load_exported(onnx, device=device, trusted=trusted), **options)
        loaded = load_detector(
            run,
            config=config,
            weights=weights,
            device=device,
            precision=precision,
            ema=ema,
            trusted=trusted,
        )
        return cls(loaded, **options)

    def reset(self) -> None:
        """Forgets all that was seen: the next moment begins a scene, for every car."""
        self._memories: list[TemporalMemory] = []  # (1, M, ...) of each car
        self._drives: list[Drive] = []
        self._tables: list[TrackTable] = []
        # By the rows that go together and their number of cameras: the code of their rigs, graphs.
        # The last ones that were in use.
        self._steps: dict[tuple[int, ...], FrameStep] = {}

    def __call__(
        self,
        pictures: Mapping[str, Picture],
        rig: Rig,
        *,
        vehicle_to_world: Pose | np.ndarray,
        timestamp_s: float,
        camera_vehicle_to_world: Mapping[str, Pose | np.ndarray] | None = None,
    ) -> Objects:
        """Detects in the next moment of one car.

        Args:
            pictures: camera -> (height, width, 3) uint8 array, or a file, or None for a camera that
                has no picture in this moment.
            rig: the cameras.
            vehicle_to_world: pose of the vehicle, a 4x4 matrix or a `Pose`, in metres, in one frame
                of the world for a scene.
            timestamp_s: seconds since the epoch, or since any moment.
            camera_vehicle_to_world: camera -> pose of the vehicle when its picture was taken, where
                that is known and differs.

        Raises:
            InputError: something cannot be what it says; names the camera, the value and the fix.
            BadImageError: a file is no whole picture, and `on_bad_image` is "raise".
        """
        moved = camera_vehicle_to_world or {}
        moment = Moment(pictures, rig, vehicle_to_world, timestamp_s, moved)
        return self.predict_batch([moment])[0]

    def predict_batch(self, moments: Sequence[Moment]) -> list[Objects]:
        """Detects in the next moment of each of B cars, as `__call__` does for one.

        The cars keep their places in the list. Their rigs may differ. If the number of cars
        changes, all begin anew.
        """
        if isinstance(moments, (Moment, Mapping)) or not isinstance(moments, Iterable):
            raise InputError(
                f"moments are a {type(moments).__name__}: give a list of Moment, one for each car"
            )
        prepared, given = [], list(moments)
        for row, moment in enumerate(given):
            with naming_car(row, len(given)):
                prepared.append(self.prepare(moment))
        return self.detect(prepared)

    def prepare(self, moment: Moment) -> Prepared:
        """Checks a moment and reads its pictures; may run in another thread than `detect`."""
        return self._preparation(moment)

    def detect(self, prepared: Sequence[Prepared]) -> list[Objects]:
        """Detects in prepared moments, one for each car, and remembers them.

        Raises:
            InputError: there is none, or the network computes no numbers.
        """
        cars = len(prepared)
        if not cars:
            raise InputError("there is no moment: give one for each car")
        for row, moment in enumerate(prepared):
            with naming_car(row, cars):
                _check_prepared(moment)
        drives: Sequence[Drive | None] = self._drives
        memories, tables = list(self._memories), list(self._tables)
        if cars != len(drives):
            if drives:
                logger.info("%d cars after %d: all begin anew", cars, len(drives))
            drives, memories = [None] * cars, [self.loaded.detector.empty_memory(1)] * cars
            tables = [TrackTable.empty(max((t.next_id for t in tables), default=1))] * cars
        steps = self._follow(prepared, drives)
        found: dict[int, FoundByNetwork] = {}
        for rows in alike(prepared):
            now = self._run(rows, prepared, steps, memories)
            found |= zip(rows, now, strict=True)
        objects = []
        for row, moment in enumerate(prepared):
            with naming_car(row, cars):
                self._check_finite(moment, found[row].memory)
                step, table = steps[row], tables[row]
                if step.anew is not None:
                    table = TrackTable.empty(table.next_id)
                of_car, memory, tables[row] = self._objects(moment, found[row], step, table)
                objects.append(of_car)
                if step.remember:
                    memories[row] = memory
        # All at once, when nothing can fail any more: a moment counts as a whole or not at all.
        self._memories, self._drives = memories, [step.drive for step in steps]
        self._tables = tables
        return objects

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what was seen, as safetensors, so that another process can go on from there."""
        tables = [] if self._tracker is None else self._tables
        write_state(path, self._memories, self._drives, self.loaded.identity, tables)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from what `save_state` has written, bit for bit.

        Raises:
            MissingFileError: no such file.
            InputError: it is damaged, or of a detector with other weights or precision.
        """
        like = self.loaded.detector.empty_memory(1)
        state = read_state(path, like, self.loaded.identity)
        self.reset()
        self._memories, self._drives, self._tables = state

    def _follow(self, prepared: Sequence[Prepared], drives: Sequence[Drive | None]) -> list[Step]:
        """How each moment follows; says where a scene begins."""
        steps = []
        for row, (moment, drive) in enumerate(zip(prepared, drives, strict=True)):
            step = follow(
                drive if self.loaded.memory or self._tracker else None,
                moment.timestamp_s,
                moment.vehicle_to_world,
                max_gap_s=self.max_gap_s,
                period_s=self.frame_period_s,
            )
            tell(step, f"car {row}: " if len(prepared) > 1 else "")
            steps.append(step)
        return steps

    def _run(
        self,
        rows: tuple[int, ...],
        prepared: Sequence[Prepared],
        steps: Sequence[Step],
        memories: Sequence[TemporalMemory],
    ) -> list[FoundByNetwork]:
        """What is found for cars whose pictures are alike."""
        detector = self.loaded.detector
        run = self._step((*rows, len(prepared[rows[0]].cameras)))
        frame = Frame.collate([prepared[row].sample for row in rows], images_to=detector.device)
        goes_on = torch.tensor([self._goes_on(steps[row]) for row in rows])
        frame = replace(frame, continues_stream=goes_on)
        padded, memory = run(frame, joined([memories[row] for row in rows]))
        parts = parted(memory, detector.memory_length)
        remembered = padded.remembered.split(1)  # (B, K) -> B of (1, K)
        return [*map(FoundByNetwork, padded.unpad(), parts, remembered)]

    def _goes_on(self, step: Step) -> bool:
        """Whether the network uses what it has seen before a moment."""
        return step.anew is None and self.loaded.memory

    def _step(self, key: tuple[int, ...]) -> FrameStep:
        """What is kept for rows and a number of cameras; cars come and go, so not of all."""
        step = self._steps.pop(key, None)
        if step is None:
            detector, precision = self.loaded.detector, self.loaded.precision
            step = FrameStep(detector, precision, cuda_graph=self._cuda_graph)
        self._steps[key] = step
        if len(self._steps) > _MOST_STEPS:
            del self._steps[next(iter(self._steps))]
        return step

    def _check_finite(self, moment: Prepared, memory: TemporalMemory) -> None:
        # Boxes do not tell: decoding drops what is no number, and then nothing is found for ever.
        finite = torch.stack([value.isfinite().all() for value in tensors_of(memory)])
        if not finite.all():
            low = self.loaded.precision
            fix = "" if low == "float32" else f", or precision={low!r} is too low: give 'float32'"
            raise InputError(
                f"sample {_token(moment)}: the network computes NaN or infinite numbers. Its "
                f"checkpoint is damaged, its training diverged{fix}"
            )

    def _objects(
        self, moment: Prepared, found: FoundByNetwork, step: Step, table: TrackTable
    ) -> tuple[Objects, TemporalMemory, TrackTable]:
        """The objects of a car, its memory with their ids, and the tracks for the next moment."""
        spec, tracks, memory = self.loaded.spec, None, found.memory
        detections = sound_boxes(found.detections, _token(moment), len(spec.classes))
        poses = (moment.reference_to_vehicle, moment.vehicle_to_world)
        if self._tracker is not None:
            tracks, tracked = track(
                self._tracker, table, detections, *poses, moment.timestamp_s, _token(moment)
            )
            queries = self.loaded.detector.num_frame_queries
            memory = named_by(tracked, memory, found.remembered, queries)
            table = tracked.table
        objects = Objects.of(
            detections,
            *poses,
            spec,
            timestamp_s=moment.timestamp_s,
            starts_scene=not self._goes_on(step),
            cameras=moment.cameras,
            tracks=tracks,
        )
        return objects, memory, table


def _check_prepared(moment: Any) -> None:
    if not isinstance(moment, Prepared):
        raise InputError(
            f"the prepared moment is a {type(moment).__name__}: give what `prepare` made of it"
        )


def _token(moment: Prepared) -> str:
    return moment.sample.sample_token or f"at {moment.timestamp_s:.6f} s"
