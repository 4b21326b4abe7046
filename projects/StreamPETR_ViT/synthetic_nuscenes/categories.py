"""nuScenes names: categories, attributes, visibility levels, and typical sizes per class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOVING_SPEED_MPS = 0.2  # above it the reference's result formatter says "moving"

# All 23 categories of the real data set, so that code which lists them finds them.
CATEGORY_NAMES = (
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.wheelchair",
    "human.pedestrian.stroller",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.construction_worker",
    "animal",
    "vehicle.car",
    "vehicle.motorcycle",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.truck",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.trailer",
    "movable_object.barrier",
    "movable_object.trafficcone",
    "movable_object.pushable_pullable",
    "movable_object.debris",
    "static_object.bicycle_rack",
)

ATTRIBUTE_NAMES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)

VISIBILITY_LEVELS = (("1", "v0-40"), ("2", "v40-60"), ("3", "v60-80"), ("4", "v80-100"))


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        size_wlh_m: mean width, length, height.
        categories: category names with their shares.
    """

    size_wlh_m: tuple[float, float, float]
    categories: tuple[tuple[str, float], ...]

    def draw_category(self, rng: np.random.Generator) -> str:
        """One of the categories, by share."""
        names, shares = zip(*self.categories, strict=True)
        return str(rng.choice(np.array(names), p=np.array(shares)))


# The ten detection classes, and the rack that switches bicycles off in the evaluation.
# Sizes: close to the means of the classes in nuScenes (arXiv 1903.11027).
KINDS = {
    "car": Kind((1.95, 4.62, 1.73), (("vehicle.car", 1.0),)),
    "truck": Kind((2.51, 6.93, 2.84), (("vehicle.truck", 1.0),)),
    "construction_vehicle": Kind((2.75, 6.4, 3.15), (("vehicle.construction", 1.0),)),
    "bus": Kind((2.94, 11.1, 3.45), (("vehicle.bus.rigid", 0.8), ("vehicle.bus.bendy", 0.2))),
    "trailer": Kind((2.88, 12.0, 3.85), (("vehicle.trailer", 1.0),)),
    "barrier": Kind((2.5, 0.5, 0.98), (("movable_object.barrier", 1.0),)),
    "motorcycle": Kind((0.77, 2.1, 1.46), (("vehicle.motorcycle", 1.0),)),
    "bicycle": Kind((0.6, 1.7, 1.28), (("vehicle.bicycle", 1.0),)),
    "pedestrian": Kind(
        (0.67, 0.73, 1.76),
        (
            ("human.pedestrian.adult", 0.85),
            ("human.pedestrian.child", 0.05),
            ("human.pedestrian.construction_worker", 0.07),
            ("human.pedestrian.police_officer", 0.03),
        ),
    ),
    "traffic_cone": Kind((0.4, 0.4, 1.06), (("movable_object.trafficcone", 1.0),)),
    "bicycle_rack": Kind((2.6, 2.4, 1.4), (("static_object.bicycle_rack", 1.0),)),
}
KIND_NAMES = tuple(KINDS)
LARGE_KINDS = ("truck", "construction_vehicle", "bus", "trailer")


def attribute_of(kind: str, speed_mps: float) -> str:
    """Attribute that the reference's formatter gives a box of that class and speed, "" for none.

    Source: released StreamPETR behaviour, which knows class and velocity only. With it a detector
    that is right about these makes no attribute error.
    """
    moving = speed_mps > MOVING_SPEED_MPS
    if kind in ("car", "truck", "construction_vehicle", "trailer"):
        return "vehicle.moving" if moving else "vehicle.parked"
    if kind == "bus":
        return "vehicle.moving" if moving else "vehicle.stopped"
    if kind in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if kind == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    return ""
