"""False detections on the rays of objects that were found: what depth errors of cameras leave.

A camera sees well in which direction an object is, and badly how far. A detector that is not sure
puts several boxes on the ray through the object, of which one is right: the others are duplicates.

Shape letters: n detections, m true objects, N cameras; f false detections, t matched objects.
Source: specification of ray denoising, 1.4; matching as in the detection task of nuScenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MATCH_M = 2.0  # nearer centres belong together
ON_RAY_RAD = (0.0, math.radians(0.5))
# Two strips, as wide together as those on the ray: an upper estimate of what chance puts there.
# Near the car, where a strip is narrow, duplicates with an error of direction are in it too.
BESIDE_RAY_RAD = (math.radians(1.5), math.radians(2.0))
NO_OBJECT = -1


@dataclass(frozen=True, eq=False)
class RaySample:
    """What counts of one sample. Positions are on the ground plane of one frame, in metres.

    Attributes:
        found_m: (n, 2) centres of the detections.
        scores: (n,).
        found_labels: (n,) classes.
        true_m: (m, 2) centres of the true objects.
        true_labels: (m,).
        cameras_m: (N, 2) optical centres.
        seen: (m, N) whether a camera has the centre of an object in its picture.
    """

    found_m: Floats
    scores: Floats
    found_labels: Ints
    true_m: Floats
    true_labels: Ints
    cameras_m: Floats
    seen: Bools


@dataclass(frozen=True)
class RayDuplicates:
    """Counts over all detections whose score is at least the threshold.

    Attributes:
        recall: share of the true objects that are matched.
        threshold: the score.
        true_objects: of all samples and classes.
        matched: true objects with a detection.
        false_positives: detections without a true object.
        duplicates: false positives on the ray of a matched object of their class.
        farther: duplicates that are farther from the camera than that object.
        beside: what duplicates would be from 1.5 to 2 degrees of azimuth: how many chance gives.
    """

    recall: float
    threshold: float
    true_objects: int
    matched: int
    false_positives: int
    duplicates: int
    farther: int
    beside: int

    def row(self) -> dict[str, float | int | None]:
        """The counts, and what they are per true object; shares of no duplicates are None."""
        nearer = self.duplicates - self.farther
        return {
            **asdict(self),
            "duplicates_per_object": self.duplicates / self.true_objects,
            "beside_per_object": self.beside / self.true_objects,
            "false_positives_per_object": self.false_positives / self.true_objects,
            "share_farther": self.farther / self.duplicates if self.duplicates else None,
            "share_nearer": nearer / self.duplicates if self.duplicates else None,
        }


def in_pictures(
    points_m: Floats, camera_to_world: Floats, intrinsics: Floats, image_sizes: NDArray[np.int32]
) -> Bools:
    """Which points lie in which pictures.

    Args:
        points_m: (m, 3) in the world frame.
        camera_to_world: (N, 4, 4) poses, each at the time of its picture.
        intrinsics: (N, 3, 3) in pixels.
        image_sizes: (N, 2) width and height.

    Returns:
        (m, N).
    """
    axes, origin = camera_to_world[:, :3, :3], camera_to_world[:, None, :3, 3]
    in_camera = (points_m - origin) @ axes  # (N, m, 3), rows times R: the inverse rotation
    scaled = in_camera @ intrinsics.swapaxes(-1, -2)
    # Compared without a division by the depth: this is never true behind a camera.
    limits = scaled[..., 2:] * image_sizes[:, None]
    return ((scaled[..., :2] >= 0) & (scaled[..., :2] < limits)).all(axis=-1).T


def match_nearest(sample: RaySample) -> Ints:
    """The true object of each detection, as the nuScenes metric matches at 2 m.

    The best detection comes first and takes the nearest object of its class that is left.

    Returns:
        (n,) index of the object, or `NO_OBJECT`.
    """
    matches = np.full(len(sample.scores), NO_OBJECT, dtype=np.int64)
    if not len(sample.true_labels):
        return matches
    gaps = _lengths(sample.found_m[:, None] - sample.true_m)  # (n, m)
    gaps[sample.found_labels[:, None] != sample.true_labels] = np.inf
    # Quirk: of equal scores the last comes first, as in the devkit.
    for row in np.argsort(sample.scores, kind="stable")[::-1]:
        nearest = gaps[row].argmin()
        if gaps[row, nearest] < MATCH_M:
            matches[row] = nearest
            gaps[:, nearest] = np.inf
    return matches


def ray_duplicates(samples: Sequence[RaySample], recalls: Sequence[float]) -> list[RayDuplicates]:
    """Counts duplicates at the highest score thresholds that reach some recalls.

    A detection is a duplicate of a true object if it is matched to none, the object is matched,
    both are of one class and more than 2 m apart, and they lie within 0.5 degrees of azimuth, seen
    from a camera that has the object's centre in its picture.

    Args:
        samples: of a results file.
        recalls: each above 0, at most 1; over all classes together.

    Returns:
        The counts at each recall.

    Raises:
        InputError: there is no true object, or a recall is not reached.
    """
    total = sum(len(sample.true_labels) for sample in samples)
    if not total:
        raise InputError("no sample has a true object that counts; choose another split")
    matches = [match_nearest(sample) for sample in samples]
    scores = np.concatenate([sample.scores for sample in samples])
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(np.concatenate(matches)[order] != NO_OBJECT)
    counts = []
    for recall in recalls:
        enough = np.flatnonzero(found / total >= recall)
        if not len(enough):
            most = (found[-1] if len(found) else 0) / total
            raise InputError(
                f"recall {recall:g} is not reached: all detections together reach {most:.4f}; ask "
                "for less"
            )
        counts.append(_count(samples, matches, float(scores[order[enough[0]]]), total))
    return counts


def _count(
    samples: Sequence[RaySample], matches: Sequence[Ints], threshold: float, total: int
) -> RayDuplicates:
    matched = false_positives = duplicates = farther = beside = 0
    for sample, objects in zip(samples, matches, strict=True):
        kept = sample.scores >= threshold
        false = np.flatnonzero(kept & (objects == NO_OBJECT))
        hit = objects[kept & (objects != NO_OBJECT)]
        is_duplicate, is_farther = _near_rays(sample, false, hit, ON_RAY_RAD)
        matched += len(hit)
        false_positives += len(false)
        duplicates += int(is_duplicate.sum())
        farther += int(is_farther.sum())
        beside += int(_near_rays(sample, false, hit, BESIDE_RAY_RAD)[0].sum())
    return RayDuplicates(
        recall=matched / total,
        threshold=threshold,
        true_objects=total,
        matched=matched,
        false_positives=false_positives,
        duplicates=duplicates,
        farther=farther,
        beside=beside,
    )


def _near_rays(
    sample: RaySample, false: Ints, objects: Ints, limits_rad: tuple[float, float]
) -> tuple[Bools, Bools]:
    """Which detections (f,) are near the ray of an object, and farther than the nearest such one.

    Args:
        sample: the sample.
        false: (f,) rows of detections.
        objects: (t,) rows of true objects.
        limits_rad: smallest and largest azimuth between detection and object.
    """
    if not len(false) or not len(objects):
        return np.zeros(len(false), dtype=bool), np.zeros(len(false), dtype=bool)
    found_m, true_m = sample.found_m[false], sample.true_m[objects]
    to_found = found_m[:, None] - sample.cameras_m  # (f, N, 2)
    to_true = true_m[:, None] - sample.cameras_m  # (t, N, 2)
    x, y = np.moveaxis(to_found[:, None], -1, 0)  # (f, 1, N) each
    true_x, true_y = np.moveaxis(to_true, -1, 0)  # (t, N) each
    angles = np.abs(np.arctan2(x * true_y - y * true_x, x * true_x + y * true_y))  # (f, t, N)
    gaps = _lengths(found_m[:, None] - true_m)  # (f, t)
    same = sample.found_labels[false][:, None] == sample.true_labels[objects]
    near = (limits_rad[0] <= angles) & (angles <= limits_rad[1]) & sample.seen[objects]
    near &= ((gaps > MATCH_M) & same)[..., None]
    gaps[~near.any(axis=-1)] = np.inf
    nearest = gaps.argmin(axis=1)  # (f,)
    rows = np.arange(len(false))
    camera = near[rows, nearest].argmax(axis=-1)  # the first that sees it so
    distances, true_distances = _lengths(to_found), _lengths(to_true)  # (f, N), (t, N)
    is_farther = distances[rows, camera] > true_distances[nearest, camera]
    is_near = np.isfinite(gaps[rows, nearest])
    return is_near, is_near & is_farther


def _lengths(vectors: Floats) -> Floats:
    return np.hypot(vectors[..., 0], vectors[..., 1])
