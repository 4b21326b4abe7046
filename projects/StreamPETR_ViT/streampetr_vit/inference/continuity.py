"""Whether a moment goes on where the one before it was, and whether the memory takes it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from streampetr_vit.structures import Pose

logger = logging.getLogger(__name__)

MAX_GAP_S = 2.0  # by default; the memory of released weights reaches back so far
# No car is as fast or turns as fast; what is added is for corrections of a position.
FASTEST_MPS, JUMP_M = 100.0, 10.0
FASTEST_TURN_RADPS, JUMP_RAD = 3.0, 1.0
# Of two moments that are equally near, always the earlier one, whatever their rounding.
_TIE_S = 1e-3
_MOST_ODD = 3  # moments one after the other: then something is wrong with their times or poses
_OF_TIMES = "is timestamp_s in seconds, and does it rise?"
_OF_POSES = "is vehicle_to_world in metres, and does it map from the vehicle to the world?"


@dataclass(frozen=True, eq=False)
class Drive:
    """Where one car was in the last moment.

    Attributes:
        timestamp_s, vehicle_to_world: of that moment.
        remembered_s: time of the last moment that the memory has taken.
        odd: how many of the last moments, one after the other, began a scene, or had the same time
            as the one before.
    """

    timestamp_s: float
    vehicle_to_world: Pose
    remembered_s: float
    odd: int = 0


@dataclass(frozen=True)
class Step:
    """How a moment follows the one before it.

    Attributes:
        drive: the car's place now.
        anew: why a scene begins; None where it goes on, "" for the first moment of all.
        remember: whether the memory takes this moment.
        question: what to ask the user where there are many such moments.
    """

    drive: Drive
    anew: str | None
    remember: bool
    question: str = _OF_TIMES


def follow(
    last: Drive | None, timestamp_s: float, pose: Pose, *, max_gap_s: float, period_s: float
) -> Step:
    """How a moment follows.

    Args:
        last: None before the first moment.
        timestamp_s, pose: of the moment, `pose` from the vehicle to the world.
        max_gap_s: a longer time between two moments begins a scene.
        period_s: time between two moments that the memory takes; 0 takes every one.
    """
    if last is None:
        return Step(Drive(timestamp_s, pose, timestamp_s), "", True)
    passed = timestamp_s - last.timestamp_s
    late, far = _time_break(passed, max_gap_s), _pose_break(last.vehicle_to_world, pose, passed)
    odd = last.odd + 1 if late or far or passed == 0 else 0
    if late or far:
        drive = Drive(timestamp_s, pose, timestamp_s, odd)
        return Step(drive, late or far, True, _OF_TIMES if late or passed == 0 else _OF_POSES)
    # Of the moments around the wished time, the nearest one: half a step early is near enough.
    remember = timestamp_s - last.remembered_s + passed / 2 >= period_s - _TIE_S
    remembered_s = timestamp_s if remember else last.remembered_s
    return Step(Drive(timestamp_s, pose, remembered_s, odd), None, remember)


def tell(step: Step, car: str) -> None:
    """Logs that a scene begins, and times and poses that cannot be.

    Args:
        step: of this moment.
        car: text in front.
    """
    if step.anew:
        logger.info("%sa scene begins: %s", car, step.anew)
    if step.drive.odd == _MOST_ODD:
        why = f"began a scene, as {step.anew}" if step.anew else "have the time of the one before"
        logger.warning(
            "%sthe last %d moments each %s: %s Without a memory, detections are worse",
            car,
            _MOST_ODD,
            why,
            step.question,
        )


def _time_break(passed_s: float, max_gap_s: float) -> str | None:
    if passed_s < 0:
        return f"the time goes back by {-passed_s:.3f} s"
    if passed_s > max_gap_s:
        return f"{passed_s:.3f} s have passed, more than max_gap_s={max_gap_s:g}"
    return None


def _pose_break(last: Pose, now: Pose, passed_s: float) -> str | None:
    way = float(np.linalg.norm(now.translation_m - last.translation_m))
    if way > JUMP_M + FASTEST_MPS * passed_s:
        return f"the car has moved by {way:.1f} m in {passed_s:.3f} s"
    turn = float((last.rotation().inv() * now.rotation()).magnitude())
    if turn > JUMP_RAD + FASTEST_TURN_RADPS * passed_s:
        return f"the car has turned by {np.degrees(turn):.0f} degrees in {passed_s:.3f} s"
    return None
