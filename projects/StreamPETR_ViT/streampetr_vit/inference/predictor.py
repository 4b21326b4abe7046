"""From the pictures of a car's cameras to 3D boxes, moment after moment.

Shape letters: B cars, M entries of the memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.sound_boxes import sound_boxes
from streampetr_vit.inference.continuity import Drive, Step, follow
from streampetr_vit.inference.frame_step import FrameStep
from streampetr_vit.inference.loading import LoadedDetector, load_detector
from streampetr_vit.inference.pictures import PictureMaker
from streampetr_vit.inference.predictor_state import read_state, write_state
from streampetr_vit.inference.preparation import Preparation, Prepared
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame, Moment, Objects, Pose, Rig
from streampetr_vit.structures.moment import Picture
from streampetr_vit.structures.sample_checks import LONGEST_GAP_S, check_sample

logger = logging.getLogger(__name__)

_GAPS_THAT_ARE_NO_GAPS = 3  # one after the other: then the unit of time is another


class Predictor:
    """Detects the objects around a car, or around several, and remembers what it has seen.

    A scene begins anew where the time goes back or jumps, or the pose jumps as no car can; `reset`
    begins one in any case. Where moments come faster than those of the training, every one is
    detected in, and the memory takes the nearest to each `frame_period_s`.

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
        cuda_graph: capture the frame in a CUDA graph and replay it.

    Raises:
        InputError: an option has a value that is not allowed.
    """

    def __init__(
        self,
        loaded: LoadedDetector,
        *,
        max_gap_s: float = 2.0,
        frame_period_s: float | None = None,
        allow_missing_cameras: bool = False,
        on_bad_image: str = "raise",
        channel_order: str = "rgb",
        cuda_graph: bool = False,
    ) -> None:
        if not 0 < max_gap_s <= LONGEST_GAP_S:
            raise InputError(f"max_gap_s={max_gap_s!r}: give seconds, up to {LONGEST_GAP_S}")
        period_s = loaded.frame_period_s if frame_period_s is None else frame_period_s
        if not 0 <= period_s < max_gap_s:
            raise InputError(
                f"frame_period_s={period_s!r} with max_gap_s={max_gap_s:g}: give seconds from 0 "
                "on, less than max_gap_s"
            )
        self.loaded, self.max_gap_s, self.frame_period_s = loaded, max_gap_s, period_s
        self._cuda_graph = cuda_graph
        self._preparation = Preparation(
            PictureMaker(loaded.image_aug, channel_order),
            loaded.reference_to_vehicle,
            allow_missing_cameras,
            on_bad_image,
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
        **options: Any,
    ) -> Predictor:
        """A predictor with the weights of a run's folder, or of a recipe and a file.

        Args:
            run: folder that a training has written.
            config: recipe (.py), or config.yaml of a run; with `weights`, in place of `run`.
            weights: the file. With `run`: another one than the last checkpoint.
            device: "auto" (the GPU if there is one), "cpu", "cuda" or "cuda:N".
            precision: "auto" (bf16 on a GPU that has it, else float32), "float32", "bf16", "fp16".
            ema: take the moving average of the weights.
            trusted: packages that a YAML file may call beside those that recipes use.
            options: of the predictor, see the class.

        Raises:
            UserError: a file is missing, damaged, or not of this detector; or see `InputError`.
        """
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
        self._memories: list[TemporalMemory] = []  # (1, M + new entries, ...) of each car
        self._drives: list[Drive] = []
        # By the rows that go together and their number of cameras: the code of their rigs, graphs.
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
        return self.detect([self.prepare(moment) for moment in moments])

    def prepare(self, moment: Moment) -> Prepared:
        """Checks a moment and reads its pictures; may run in another thread than `detect`."""
        return self._preparation(moment)

    def detect(self, prepared: Sequence[Prepared]) -> list[Objects]:
        """Detects in prepared moments, one for each car, and remembers them."""
        if not prepared:
            raise InputError("there is no moment: give one for each car")
        for moment in prepared:
            check_sample(moment.sample)
        if len(prepared) != len(self._drives):
            if self._drives:
                logger.info("%d cars after %d: all begin anew", len(prepared), len(self._drives))
            self.reset()
        steps = self._follow(prepared)
        found: dict[int, Detections] = {}
        memories = list(self._memories or [None] * len(prepared))
        for rows in _alike(prepared):
            for row, detections, memory in self._run(rows, prepared, steps):
                found[row] = detections
                if steps[row].remember:
                    memories[row] = memory
        objects = [self._objects(p, found[row], steps[row]) for row, p in enumerate(prepared)]
        # All at once, when nothing can fail any more: a moment counts as a whole or not at all.
        self._memories, self._drives = memories, [step.drive for step in steps]
        return objects

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes what was seen, as safetensors, so that another process can go on from there."""
        length = self.loaded.detector.head.memory_length
        # Of a frame's new entries and the older ones, the next frame keeps as many.
        kept = [memory.map(lambda value: value[:, :length]) for memory in self._memories]
        write_state(path, kept, self._drives)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Goes on from what `save_state` has written, bit for bit.

        Raises:
            MissingFileError: no such file.
            InputError: it is damaged, or of another detector.
        """
        self.reset()
        self._memories, self._drives = read_state(path, self.loaded.detector.empty_memory(1))

    def _follow(self, prepared: Sequence[Prepared]) -> list[Step]:
        """How each moment follows; says where a scene begins."""
        steps = []
        remembers = bool(self._drives) and self.loaded.memory
        for row, moment in enumerate(prepared):
            step = follow(
                self._drives[row] if remembers else None,
                moment.timestamp_s,
                moment.vehicle_to_world,
                max_gap_s=self.max_gap_s,
                period_s=self.frame_period_s,
            )
            if step.anew:
                car = f"car {row}: " if len(prepared) > 1 else ""
                logger.info("%sa scene begins: %s", car, step.anew)
                if step.drive.gaps == _GAPS_THAT_ARE_NO_GAPS:
                    logger.warning(
                        "%sthe last %d moments each began a scene, as %s: is timestamp_s in "
                        "seconds, and does it rise? Without a memory, detections are worse",
                        car,
                        step.drive.gaps,
                        step.anew,
                    )
            steps.append(step)
        return steps

    def _run(
        self, rows: tuple[int, ...], prepared: Sequence[Prepared], steps: Sequence[Step]
    ) -> list[tuple[int, Detections, TemporalMemory]]:
        """Detections and memories of cars whose pictures are alike."""
        detector = self.loaded.detector
        key = (*rows, len(prepared[rows[0]].cameras))
        if key not in self._steps:
            self._steps[key] = FrameStep(
                detector, self.loaded.precision, cuda_graph=self._cuda_graph
            )
        frame = Frame.collate([prepared[row].sample for row in rows], images_to=detector.device)
        goes_on = torch.tensor([steps[row].anew is None for row in rows])
        frame = replace(frame, continues_stream=goes_on)
        empty = None if self._memories else detector.empty_memory(1)
        memory = _joined([empty or self._memories[row] for row in rows])
        padded, memory = self._steps[key](frame, memory)
        found = padded.unpad()
        parts = _parted(memory, len(rows))
        return list(zip(rows, found, parts, strict=True))

    def _objects(self, moment: Prepared, found: Detections, step: Step) -> Objects:
        spec = self.loaded.spec
        token = moment.sample.sample_token or f"at {moment.timestamp_s:.6f} s"
        return Objects.of(
            sound_boxes(found, token, len(spec.classes)),
            moment.reference_to_vehicle,
            moment.vehicle_to_world,
            spec,
            timestamp_s=moment.timestamp_s,
            starts_scene=step.anew is not None,
            cameras=moment.cameras,
        )


def _alike(prepared: Sequence[Prepared]) -> list[tuple[int, ...]]:
    """Rows whose pictures can be stacked, that is: with equally many cameras."""
    rows: dict[int, list[int]] = {}
    for row, moment in enumerate(prepared):
        rows.setdefault(len(moment.cameras), []).append(row)
    return [tuple(group) for group in rows.values()]


def _joined(memories: Sequence[TemporalMemory]) -> TemporalMemory:
    """Memories of one car each -> of all, (B, M, ...)."""
    if len(memories) == 1:
        return memories[0]
    names = [field.name for field in fields(TemporalMemory)]
    return TemporalMemory(
        **{name: torch.cat([getattr(memory, name) for memory in memories]) for name in names}
    )


def _parted(memory: TemporalMemory, cars: int) -> list[TemporalMemory]:
    """The inverse of `_joined`."""
    if cars == 1:
        return [memory]
    return [memory.map(lambda value, row=row: value[row : row + 1]) for row in range(cars)]
