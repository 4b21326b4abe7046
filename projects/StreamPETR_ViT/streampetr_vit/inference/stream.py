"""One frame after the other through a detector: the one place with memory during inference.

Shape letters: B streams, each of its own scene.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.inference.batching import joined
from streampetr_vit.inference.detector import Detector
from streampetr_vit.inference.frame_step import FrameStep
from streampetr_vit.inference.tracking import named_by, track
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame, PaddedDetections, Sample, Tracks
from streampetr_vit.structures.sample_checks import LONGEST_GAP_S, check_batch
from streampetr_vit.texts import shown
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

# No car is as fast, and no correction of a position as large.
_FASTEST_MPS, _JUMP_M = 150.0, 100.0


class Stream:
    """B streams of frames through a detector, with all that is kept from frame to frame.

    It keeps the memory, the scene and time of the last frame, the code of the last rig, and the
    captured graph. The weights must not change while a stream runs; call `reset` if they do.

    Args:
        detector: in evaluation mode, on its device.
        precision: "float32", "bf16" or "fp16", of the network, whatever surrounds a call; None is
            what surrounds it.
        memory: False makes every frame a stream of its own.
        cuda_graph: capture the frame in a CUDA graph and replay it.
        cast: cast the backbone's weights to `precision` once, instead of in each frame. This
            changes the detector, see `cast_weights`.
        tracker: gives the detections ids, which begin at 1 in each scene; None leaves them out.

    Attributes:
        memory: of B streams after the last frame; None before the first.
        tracks: of the detections of the last call, for each stream; empty without a tracker.

    Raises:
        InputError: the precision is unknown or the device does not have it; or a graph cannot be
            captured, see `GraphStep`.
    """

    def __init__(
        self,
        detector: Detector,
        precision: str | None = "float32",
        *,
        memory: bool = True,
        cuda_graph: bool = False,
        cast: bool = False,
        tracker: Tracker | None = None,
    ) -> None:
        self._step = FrameStep(detector, precision, cuda_graph=cuda_graph, cast=cast)
        self._detector, self._remembers, self._tracker = detector, memory, tracker
        self.reset()

    def reset(self) -> None:
        """Forgets everything, as if no frame had been seen."""
        self.memory: TemporalMemory | None = None
        self.tracks: list[Tracks] = []
        self._tables: list[TrackTable] = []
        # Of each row: scene token, seconds, the lidar's place in the global frame in metres.
        self._position: list[tuple[str, float, Tensor]] = []
        self.forget_rig()

    def forget_rig(self) -> None:
        """Forgets what was computed from the weights and the last rig; the streams go on."""
        self._step.forget_rig()

    def __call__(self, samples: Sequence[Sample | Mapping[str, Any]]) -> list[Detections]:
        """Detects in the next sample of each stream, and waits for the boxes.

        A row starts anew if its scene differs from that of the previous call. All rows start anew
        if their number changes.

        Args:
            samples: B of them, or dicts of their values, on the CPU.

        Returns:
            B detections on the CPU, in the lidar frame of their sample.

        Raises:
            InputError: there is no sample; a sample cannot be what it says, see `sample_checks`, or
                does not follow the one before it in the same scene; the detector is in training
                mode.
        """
        samples = check_batch(samples)
        if self._tracker is not None:
            _check_poses(samples)  # before anything changes
        position = [
            (s.scene_token, float(s.timestamp_s), s.lidar_to_global[:3, 3].double())
            for s in samples
        ]
        continues = self._continues(position)
        if not all(continues):
            # A new scene may come with another calibration, or after the weights were changed.
            self.forget_rig()
        # Pictures go to the device at once; the rig stays on the CPU, where it can be compared.
        frame = Frame.collate(samples, images_to=self._detector.device)
        padded = self.push(replace(frame, continues_stream=torch.tensor(continues)))
        found = padded.unpad()
        if self._tracker is not None:
            self._track(self._tracker, samples, continues, found, padded.remembered)
        # Last: what the next frame goes on with must be there.
        self._position = position
        return found

    def push(self, frame: Frame) -> PaddedDetections:
        """Detects in the next frame, and returns before the device has done so.

        Args:
            frame: of B streams, on the CPU or on the detector's device. Its `continues_stream`
                decides which streams go on, unless there is no memory of B streams. A rig on the
                CPU is compared with the last one by value. On the device, two rigs are the same
                only if they are the same Python object, which must not change.

        Returns:
            Detections on the device; their `unpad` waits for them. Later frames do not change them.

        Raises:
            InputError: it is no Frame, or the detector is in training mode.
        """
        if not isinstance(frame, Frame):
            raise InputError(
                f"push takes a Frame, not a {type(frame).__name__}: Frame.collate([sample]); or "
                "call the stream, stream([sample])"
            )
        memory, rows = self.memory, len(frame.timestamp_s)
        if memory is None or len(memory.embedding) != rows:
            memory = self._detector.empty_memory(rows)
            # Without a memory no stream goes on, whatever the frame says.
            anew = torch.zeros_like(frame.continues_stream)
            frame = replace(frame, continues_stream=anew)
        found, memory = self._step(frame, memory)
        self.memory = memory if self._remembers else None
        return found

    def _track(
        self,
        tracker: Tracker,
        samples: Sequence[Sample],
        continues: Sequence[bool],
        found: Sequence[Detections],
        remembered: Tensor,
    ) -> None:
        """Gives the detections of a frame ids, and tells the memory."""
        queries, tracks, tables, memories = self._detector.num_frame_queries, [], [], []
        for row, (sample, detections) in enumerate(zip(samples, found, strict=True)):
            assert sample.lidar_to_ego is not None and sample.ego_to_global is not None
            of_row, step = track(
                tracker,
                self._tables[row] if continues[row] else TrackTable.empty(),
                detections,
                sample.lidar_to_ego,
                sample.ego_to_global,
                float(sample.timestamp_s),
                sample.sample_token,
            )
            tracks.append(of_row)
            tables.append(step.table)
            if self.memory is not None and tracker.reads_memory:
                memory = self.memory.map(lambda value, row=row: value[row : row + 1])
                memories.append(named_by(step, memory, remembered[row : row + 1], queries))
        self.tracks, self._tables = tracks, tables
        if memories:
            self.memory = joined(memories)

    def _continues(self, position: list[tuple[str, float, Tensor]]) -> list[bool]:
        """For each row, whether it goes on in the scene of the call before."""
        if len(position) != len(self._position):
            return [False] * len(position)
        flags = []
        for now, last in zip(position, self._position, strict=True):
            scene, time, place = now
            if self._remembers and scene == last[0]:
                _check_order(scene, time, last[1])
                _warn_of_jump(scene, time - last[1], float((place - last[2]).norm()))
            flags.append(scene == last[0])
        return flags


def _check_poses(samples: Sequence[Sample]) -> None:
    """Raises InputError unless a tracker can tell where the vehicle is."""
    for sample in samples:
        if sample.lidar_to_ego is None or sample.ego_to_global is None:
            raise InputError(
                f"sample {shown(sample.sample_token)} has no lidar_to_ego or ego_to_global: a "
                "tracker needs both poses; give the sample both, or run without a tracker"
            )


def _check_order(scene: str, time_s: float, last_time_s: float) -> None:
    """Raises InputError unless a frame can follow another one of the same scene."""
    anew = "start anew with reset() of the stream, reset_streams() of the model"
    if time_s < last_time_s:
        raise InputError(
            f"frames of scene {scene} are out of order: timestamp_s {time_s:.6f} comes after "
            f"{last_time_s:.6f}; sort the frames by time, or {anew}"
        )
    if time_s - last_time_s > LONGEST_GAP_S:
        raise InputError(
            f"timestamp_s goes from {last_time_s:.6f} to {time_s:.6f} within scene {scene}, by "
            f"more than {LONGEST_GAP_S} s: give seconds, not milliseconds or microseconds; after "
            f"a pause, name another scene_token or {anew}"
        )


def _warn_of_jump(scene: str, passed_s: float, way_m: float) -> None:
    """Says so if a car cannot have gone so far: the memory lies elsewhere then."""
    # No error: one bad position in a table must not end an evaluation in its middle.
    if way_m > _JUMP_M + _FASTEST_MPS * passed_s:
        logger.warning(
            "lidar_to_global moves by %.0f m in %.2f s within scene %s, so what was seen before is "
            "lost: give the pose in metres, as a map from lidar to global (not its inverse), in "
            "one global frame for a scene; for another one, name another scene_token",
            way_m,
            passed_s,
            scene,
        )
