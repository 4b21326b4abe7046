"""Which false detections count as duplicates on a ray, in scenes of a few boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import center_distance
from nuscenes.eval.detection.algo import accumulate
from nuscenes.eval.detection.data_classes import DetectionBox
from scipy.spatial.transform import Rotation

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.ray_duplicates import (
    RayDuplicates,
    RaySample,
    in_pictures,
    match_nearest,
    ray_duplicates,
)

CAR, PERSON = 0, 1
Found = tuple[float, float, float, int]  # x, y, score, class
True_ = tuple[float, float, int]  # x, y, class


def sample(
    found: Sequence[Found],
    true: Sequence[True_],
    cameras: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    seen: Sequence[Sequence[bool]] | None = None,
) -> RaySample:
    """A sample; by default each camera sees each object."""
    found_rows = np.array(found, dtype=np.float64).reshape(-1, 4)
    true_rows = np.array(true, dtype=np.float64).reshape(-1, 3)
    everything = np.ones((len(true), len(cameras)), dtype=bool)
    return RaySample(
        found_m=found_rows[:, :2],
        scores=found_rows[:, 2],
        found_labels=found_rows[:, 3].astype(np.int64),
        true_m=true_rows[:, :2],
        true_labels=true_rows[:, 2].astype(np.int64),
        cameras_m=np.array(cameras, dtype=np.float64),
        seen=everything if seen is None else np.array(seen, dtype=bool),
    )


def count(*samples: RaySample, recall: float = 1.0) -> RayDuplicates:
    """The counts at one recall."""
    (only,) = ray_duplicates(samples, [recall])
    return only


def turned(degrees: float, distance_m: float) -> tuple[float, float]:
    """A place at a distance and azimuth from the origin."""
    return (
        distance_m * math.cos(math.radians(degrees)),
        distance_m * math.sin(math.radians(degrees)),
    )


# A car at 20 m straight ahead is found by the second, weaker box.
CAR_AHEAD, CAR_FOUND = (20.0, 0.0, CAR), (20.5, 0.0, 0.5, CAR)


@pytest.mark.parametrize(
    ("place", "label", "duplicates", "farther"),
    [
        (turned(0.0, 25.0), CAR, 1, 1),
        (turned(0.49, 22.1), CAR, 1, 1),
        (turned(-0.49, 30.0), CAR, 1, 1),
        (turned(0.0, 15.0), CAR, 1, 0),
        (turned(0.0, 21.9), CAR, 0, 0),  # within 2 m of the object
        (turned(0.0, 18.1), CAR, 0, 0),
        (turned(0.51, 25.0), CAR, 0, 0),
        (turned(1.0, 25.0), CAR, 0, 0),
        (turned(180.0, 25.0), CAR, 0, 0),  # on the line, behind the camera
        (turned(0.0, 25.0), PERSON, 0, 0),
    ],
)
def test_where_a_false_detection_is_a_duplicate(
    place: tuple[float, float], label: int, duplicates: int, farther: int
) -> None:
    found = count(sample([(*place, 0.5, label), CAR_FOUND], [CAR_AHEAD]))
    assert (found.matched, found.false_positives) == (1, 1)
    assert (found.duplicates, found.farther) == (duplicates, farther)


@pytest.mark.parametrize(
    ("degrees", "beside"), [(0.0, 0), (1.4, 0), (1.6, 1), (-1.6, 1), (1.9, 1), (2.1, 0)]
)
def test_beside_the_ray_is_another_count(degrees: float, beside: int) -> None:
    found = count(sample([(*turned(degrees, 25.0), 0.5, CAR), CAR_FOUND], [CAR_AHEAD]))
    assert (found.duplicates, found.beside) == (int(degrees == 0), beside)
    assert found.row()["beside_per_object"] == beside


def test_azimuth_does_not_wrap() -> None:
    # The object is behind the camera, where azimuth jumps from 180 to -180 degrees.
    boxes = [(*turned(-179.8, 25.0), 0.5, CAR), (*turned(179.9, 20.0), 0.5, CAR)]
    assert count(sample(boxes, [(*turned(179.9, 20.0), CAR)])).duplicates == 1


def test_an_object_that_is_not_found_has_no_duplicates() -> None:
    # The second car is found, at another azimuth; the box beyond the first is no duplicate of it.
    boxes = [(25.0, 0.0, 0.5, CAR), (0.0, 20.0, 0.5, CAR)]
    found = count(sample(boxes, [CAR_AHEAD, (0.0, 20.0, CAR)]), recall=0.5)
    assert (found.matched, found.false_positives, found.duplicates) == (1, 1, 0)


def test_an_object_found_below_the_threshold_has_no_duplicates() -> None:
    boxes = [(25.0, 0.0, 0.9, CAR), (0.0, 20.0, 0.8, CAR), (20.0, 0.0, 0.1, CAR)]
    one = sample(boxes, [CAR_AHEAD, (0.0, 20.0, CAR)])
    half, whole = ray_duplicates([one], [0.5, 1.0])
    assert (half.false_positives, half.duplicates) == (1, 0)
    assert (whole.false_positives, whole.duplicates) == (1, 1)


def test_an_object_of_another_sample_has_no_duplicates() -> None:
    first, second = sample([CAR_FOUND], [CAR_AHEAD]), sample([(25.0, 0.0, 0.9, CAR)], [])
    assert (count(first, second).false_positives, count(first, second).duplicates) == (1, 0)


@pytest.mark.parametrize(("seen", "duplicates"), [((True, False), 0), ((False, True), 1)])
def test_rays_start_at_the_cameras_that_see_the_object(
    seen: tuple[bool, bool], duplicates: int
) -> None:
    # From the first camera the box is 2.9 degrees off, from the second it is on the ray.
    cameras = [(0.0, 0.0), (20.0, -10.0)]
    boxes = [(20.0, 5.0, 0.5, CAR), (20.0, 0.0, 0.5, CAR)]
    assert count(sample(boxes, [CAR_AHEAD], cameras, [seen])).duplicates == duplicates


def test_any_camera_will_do() -> None:
    boxes = [(25.0, 0.0, 0.5, CAR), CAR_FOUND]
    cameras = [(20.0, -10.0), (0.0, 0.0)]
    assert count(sample(boxes, [CAR_AHEAD], cameras)).farther == 1
    assert count(sample(boxes, [CAR_AHEAD], cameras, [[False, False]])).duplicates == 0


def test_nearer_and_farther_are_told_from_the_camera_that_sees_the_object() -> None:
    # The first camera looks away from both, from the other side.
    cameras = [(60.0, 0.0), (0.0, 0.0)]
    found = count(sample([(25.0, 0.0, 0.5, CAR), CAR_FOUND], [CAR_AHEAD], cameras, [[False, True]]))
    assert (found.duplicates, found.farther) == (1, 1)


def test_a_duplicate_counts_once_and_against_the_nearest_object() -> None:
    # It lies between two cars on one ray, nearer to the far one.
    boxes = [(37.0, 0.0, 0.9, CAR), CAR_FOUND, (40.0, 0.0, 0.5, CAR)]
    found = count(sample(boxes, [CAR_AHEAD, (40.0, 0.0, CAR)]))
    assert (found.duplicates, found.farther) == (1, 0)


def test_the_threshold_is_the_highest_that_reaches_the_recall() -> None:
    cars = [(20.0 * k, 0.0, CAR) for k in range(1, 5)]
    people = [(0.0, 20.0, PERSON)]
    boxes = [
        (20.0, 0.0, 0.9, CAR),
        (0.0, 20.0, 0.7, PERSON),  # recall is over all classes together
        (60.0, 0.5, 0.7, CAR),
        (50.0, 50.0, 0.7, CAR),  # of equal scores all are in
        (40.0, 0.0, 0.6, CAR),
        (-30.0, 9.0, 0.5, CAR),
    ]
    found = ray_duplicates([sample(boxes[:3], cars), sample(boxes[3:], people)], [0.2, 0.4])
    assert [(f.threshold, f.matched, f.false_positives) for f in found] == [
        (0.9, 1, 0),
        (0.7, 2, 2),
    ]
    assert [f.recall for f in found] == [0.2, 0.4]


def test_matching_takes_the_best_first_and_the_nearest_that_is_left() -> None:
    true = [(20.0, 0.0, CAR), (21.5, 0.0, CAR), (21.0, 0.0, PERSON)]
    boxes = [
        (20.1, 0.0, 0.2, CAR),  # the last: both cars are taken
        (20.5, 0.0, 0.8, CAR),  # nearest to the first car
        (20.6, 0.0, 0.7, CAR),  # nearer to the first, which is taken
        (21.5, 0.0, 0.6, CAR),
        (23.0, 0.0, 0.9, PERSON),  # exactly 2 m is too far
        (22.9, 0.0, 0.1, PERSON),
    ]
    assert match_nearest(sample(boxes, true)).tolist() == [-1, 0, 1, -1, -1, 2]


def test_of_equal_scores_the_last_is_matched_first() -> None:
    boxes = [(20.0, 0.0, 0.5, CAR), (20.5, 0.0, 0.5, CAR)]
    assert match_nearest(sample(boxes, [CAR_AHEAD])).tolist() == [-1, 0]


def test_matching_is_that_of_the_devkit() -> None:
    rng = np.random.default_rng(0)
    samples, found, truth = [], EvalBoxes(), EvalBoxes()
    for number in range(30):
        true = [(*place, CAR) for place in rng.uniform(0, 15, (12, 2))]
        near = np.array(true)[:, :2].repeat(2, axis=0) + rng.normal(0, 1.5, (24, 2))
        scores = rng.integers(0, 20, 24) / 20  # many are equal
        boxes = [(*place, score, CAR) for place, score in zip(near, scores, strict=True)]
        samples.append(sample(boxes, true))
        found.add_boxes(str(number), [_devkit_box(number, x, y, s) for x, y, s, _ in boxes])
        truth.add_boxes(str(number), [_devkit_box(number, x, y, -1.0) for x, y, _ in true])
    hits = np.concatenate([match_nearest(one) for one in samples]) != -1
    order = np.argsort(np.concatenate([one.scores for one in samples]), kind="stable")[::-1]
    right = np.cumsum(hits[order])
    assert 200 < right[-1] < 340
    recall, precision = right / 360, right / np.arange(1, len(right) + 1)
    expected = accumulate(truth, found, "car", center_distance, 2.0)
    ours = np.interp(np.linspace(0, 1, 101), recall, precision, right=0)
    assert ours == pytest.approx(expected.precision, abs=1e-12)


def _devkit_box(number: int, x: float, y: float, score: float) -> DetectionBox:
    return DetectionBox(
        sample_token=str(number),
        translation=(x, y, 0.0),
        size=(2.0, 4.0, 1.5),
        rotation=(1.0, 0.0, 0.0, 0.0),
        detection_name="car",
        detection_score=float(score),
    )


def test_what_cannot_be_counted() -> None:
    with pytest.raises(InputError, match=r"recall 0\.6 is not reached: .* reach 0\.5000"):
        count(sample([CAR_FOUND], [CAR_AHEAD, (0.0, 20.0, CAR)]), recall=0.6)
    with pytest.raises(InputError, match=r"reach 0\.0000"):
        count(sample([], [CAR_AHEAD]), recall=0.1)
    with pytest.raises(InputError, match="no sample has a true object"):
        count(sample([CAR_FOUND], []))


def test_a_row_is_per_true_object() -> None:
    boxes = [(25.0, 0.0, 0.5, CAR), (30.0, 0.0, 0.5, CAR), (15.0, 0.0, 0.5, CAR), CAR_FOUND]
    boxes += [(-9.0, 9.0, 0.5, CAR), (0.0, 20.0, 0.5, CAR)]
    row = count(sample(boxes, [CAR_AHEAD, (0.0, 20.0, CAR)])).row()
    assert row["duplicates_per_object"] == 1.5 and row["false_positives_per_object"] == 2.0
    assert row["share_farther"] == pytest.approx(2 / 3)
    assert row["share_nearer"] == pytest.approx(1 / 3)
    assert count(sample([CAR_FOUND], [CAR_AHEAD])).row()["share_farther"] is None


def test_pictures_show_what_projects_into_them() -> None:
    # A camera at (1, 2, 3) that looks along x of the world: its x is -y there, its y is -z.
    pose = np.eye(4)
    pose[:3] = [[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3]]
    back = pose.copy()
    back[:3, :3] = Rotation.from_euler("z", 180, degrees=True).as_matrix() @ pose[:3, :3]
    intrinsics = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    points = np.array(
        [
            [11.0, 2, 3],
            [11, 6.9, 3],  # 1 pixel from the left
            [11, 7.1, 3],
            [11, -2.9, 3],  # 1 pixel from the right
            [11, -3.1, 3],
            [11, 2, 6.9],  # from the top
            [11, 2, 7.1],
            [11, 2, -0.9],  # from the bottom
            [11, 2, -1.1],
            [-9, 2, 3],
            [-9, -4, -2],  # behind, and to the side
            [1, 2, 3],  # where the camera is
        ]
    )
    sizes = np.array([[100, 80], [100, 80]], dtype=np.int32)
    seen = in_pictures(points, np.stack((pose, back)), np.stack([intrinsics] * 2), sizes)
    assert seen[:, 0].tolist() == [True, True, False, True, False, True, False, True] + [False] * 4
    assert np.flatnonzero(seen[:, 1]).tolist() == [9]
