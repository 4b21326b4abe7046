"""The greedy tracker on moments whose ids are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_made_boxes import AT_ORIGIN, Described, boxes_of, boxes_of_columns

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec, ObjectClass
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.tracking.greedy import GreedyRules, GreedyTracker
from streampetr_vit.tracking.table import COLUMNS, TrackTable

PUBLISHED = GreedyRules.streampetr()
OWN = DatasetSpec(
    classes=(
        ObjectClass("van", ["vehicle.van"], scored_as="car"),
        ObjectClass("sedan", ["vehicle.sedan"], scored_as="car"),
        ObjectClass("tram", ["vehicle.tram"]),
        ObjectClass("cone", ["object.cone"], scored_as="traffic_cone"),
    ),
    cameras=("front",),
)


def car(x: float, y: float = 0.0, vx: float = 0.0, vy: float = 0.0, score: float = 0.9):
    return ("car", x, y, vx, vy, score)


def ids_of(
    moments: list[list[Described]],
    rules: GreedyRules = PUBLISHED,
    period_s: float = 0.5,
    spec: DatasetSpec = NUSCENES,
) -> list[list[int]]:
    """Ids of the boxes of each moment."""
    tracker = GreedyTracker(spec, rules)
    return [
        tracker.update(boxes_of(*boxes), 1e9 + period_s * index, AT_ORIGIN).ids.tolist()
        for index, boxes in enumerate(moments)
    ]


@pytest.mark.parametrize("hungarian", [False, True])
def test_a_driving_car_keeps_its_id_and_a_new_one_gets_the_next(hungarian: bool) -> None:
    rules = replace(PUBLISHED, hungarian=hungarian)
    moments = [[car(5.0 * t, vx=10.0)] for t in range(4)]
    moments[2] = [car(50.0), *moments[2]]
    moments[3] = [car(50.0), *moments[3]]
    assert ids_of(moments, rules) == [[1], [1], [2, 1], [2, 1]]


def test_crossing_cars_keep_their_ids() -> None:
    # They pass each other 1 m apart; by position alone they would swap.
    moments = [[car(-5 + 5.0 * t, 0, 10.0), car(5 - 5.0 * t, 1, -10.0)] for t in range(3)]
    assert ids_of(moments) == [[1, 2], [1, 2], [1, 2]]
    swapped = [[boxes[1], boxes[0]] for boxes in moments[1:]]
    assert ids_of([moments[0], *swapped]) == [[1, 2], [2, 1], [2, 1]]


@pytest.mark.parametrize(("metres", "expected"), [(2.5, 1), (2.500001, 2)])
def test_the_radius_belongs_to_what_is_within_it(metres: float, expected: int) -> None:
    assert ids_of([[car(0.0)], [car(metres)]]) == [[1], [expected]]


@pytest.mark.parametrize(
    ("name", "radius_m"),
    [
        ("car", 4),
        ("truck", 4),
        ("bus", 5.5),
        ("trailer", 3),
        ("pedestrian", 1),
        ("motorcycle", 13),
        ("bicycle", 3),
    ],
)
def test_centerpoint_has_a_radius_for_each_class(name: str, radius_m: float) -> None:
    rules = GreedyRules.centerpoint()
    for metres, expected in ((radius_m, 1), (radius_m + 1e-3, 2)):
        moments = [[(name, x, 0.0, 0.0, 0.0, 0.01)] for x in (0.0, metres)]
        assert ids_of(moments, rules) == [[1], [expected]]


def test_radii_may_be_given_by_kind_and_the_others_have_the_uniform_one() -> None:
    rules = replace(PUBLISHED, radii={"car": 1.0})
    near = [[car(0.0), ("bus", 50.0, 0, 0, 0, 0.9)], [car(1.5), ("bus", 52.5, 0, 0, 0, 0.9)]]
    assert ids_of(near, rules) == [[1, 2], [3, 2]]


def test_another_class_never_takes_an_id_and_does_not_block_it() -> None:
    truck = ("truck", 0.1, 0.0, 0.0, 0.0, 0.9)
    assert ids_of([[car(0.0)], [truck]]) == [[1], [2]]
    assert ids_of([[car(0.0)], [truck, car(2.0)]]) == [[1], [2, 1]]


def test_own_classes_are_tracked_as_what_they_count_as() -> None:
    def at(name: str, x: float) -> Described:
        return (name, x, 0.0, 0.0, 0.0, 0.9)

    moments = [[at("van", 0), at("tram", 20), at("cone", 9)], [at("sedan", 4), at("tram", 22.5)]]
    rules = replace(PUBLISHED, radii="per_class")
    # A tram is unknown to CenterPoint's table: 2.5 m.
    assert ids_of(moments, rules, spec=OWN) == [[1, 2, NO_ID], [1, 2]]
    moments[1][1] = at("tram", 22.6)
    assert ids_of(moments, rules, spec=OWN) == [[1, 2, NO_ID], [1, 3]]


def test_boxes_below_the_threshold_and_classes_that_are_not_tracked_have_no_id() -> None:
    weak, edge = car(0.0, score=0.2499), car(9.0, score=0.25)
    cone = ("traffic_cone", 3.0, 0.0, 0.0, 0.0, 0.9)
    assert ids_of([[weak, cone, edge]]) == [[NO_ID, NO_ID, 1]]


@pytest.mark.parametrize("hungarian", [False, True])
def test_two_missed_moments_keep_the_id_and_three_do_not(hungarian: bool) -> None:
    rules = replace(PUBLISHED, hungarian=hungarian)
    other = car(90.0)
    seen = [car(0.0), other]
    assert ids_of([seen, [other], [other], seen], rules)[-1] == [1, 2]
    assert ids_of([seen, [other], [other], [other], seen], rules)[-1] == [3, 2]
    # Empty moments are missed moments.
    assert ids_of([seen, [], [], seen], rules)[-1] == [1, 2]
    assert ids_of([seen, [], [], [], seen], rules)[-1] == [3, 4]


def test_a_hidden_car_moves_on() -> None:
    moments = [[car(5.0 * t, vx=10.0)] for t in range(5)]
    moments[2], moments[3] = [], []
    assert ids_of(moments) == [[1], [1], [], [], [1]]


def test_a_car_hidden_from_its_second_moment_on_stands_still() -> None:
    # It was born in a first moment, whose lag is 0: the published tracker does not move it.
    tracker = GreedyTracker(NUSCENES, PUBLISHED)
    tracker.update(boxes_of(car(0.0, vx=10.0)), 0.0, AT_ORIGIN)
    tracker.update(boxes_of(), 0.5, AT_ORIGIN)
    assert tracker.table.centers_m.tolist() == [[0.0, 0.0]]
    assert tracker.table.ages.tolist() == [2] and tracker.table.actives.tolist() == [0]


def test_empty_moments_forget_all_tracks_where_the_rules_say_so() -> None:
    rules = GreedyRules.centerpoint()
    assert ids_of([[car(0.0)], [], [car(0.0)]], rules) == [[1], [], [2]]
    assert ids_of([[], [car(0.0)], [car(0.0)]], rules) == [[], [1], [1]]


def test_a_fast_camera_keeps_a_hidden_car_for_keep_s() -> None:
    seen = [car(0.0)]
    before = [seen] * 30
    hidden = [*before, *[[] for _ in range(22)], seen]  # last seen 1.15 s ago at 20 Hz
    assert ids_of(hidden, GreedyRules(), period_s=0.05)[-1] == [1]
    assert ids_of(hidden, PUBLISHED, period_s=0.05)[-1] == [2]
    longer = [*before, *[[] for _ in range(26)], seen]
    assert ids_of(longer, GreedyRules(), period_s=0.05)[-1] == [2]


@pytest.mark.parametrize("seed", range(5))
def test_at_two_pictures_per_second_keep_s_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Key frames of nuScenes are 0.4 to 0.6 s apart, and 1.4 to 1.6 s from the third before.
    times = 1.5e9 + np.arange(60) * 0.5 + rng.uniform(-0.05, 0.05, 60)
    trackers = [GreedyTracker(NUSCENES, rules) for rules in (GreedyRules(), PUBLISHED)]
    assert trackers[0].rules.keep_s > 0 == trackers[1].rules.keep_s
    places = rng.uniform(-30, 30, (40, 2))
    for time in times:
        seen = places[rng.random(40) < 0.5]
        count = len(seen)
        boxes = boxes_of_columns(["car"] * count, seen, np.zeros((count, 2)), np.ones(count))
        first, second = (tracker.update(boxes, time, AT_ORIGIN) for tracker in trackers)
        assert first.ids.tolist() == second.ids.tolist()
    assert trackers[0].table.next_id > 60  # tracks have ended and begun


def test_time_is_measured_from_moment_to_moment() -> None:
    tracker = GreedyTracker(NUSCENES, PUBLISHED)
    tracker.update(boxes_of(car(0.0)), 10.0, AT_ORIGIN)
    # 20 m in 2 s.
    tracks = tracker.update(boxes_of(car(20.0, vx=10.0)), 12.0, AT_ORIGIN)
    assert tracks.ids.tolist() == [1] and tracks.ages_s.tolist() == [2.0]
    assert tracker.table.lags_s.tolist() == [2.0]
    # Two moments at the same time are allowed.
    assert tracker.update(boxes_of(car(20.0, vx=10.0)), 12.0, AT_ORIGIN).ids.tolist() == [1]


def test_tracks_of_all_boxes_in_their_order() -> None:
    tracker = GreedyTracker(NUSCENES, PUBLISHED)
    tracker.update(boxes_of(car(0.0), car(10.0)), 0.0, AT_ORIGIN)
    boxes = boxes_of(car(30.0, score=0.8), car(10.5, score=0.7), car(50.0, score=0.1))
    tracks = tracker.update(boxes, 0.5, AT_ORIGIN)
    assert tracks.ids.tolist() == [3, 2, NO_ID]
    assert tracks.ages_s.tolist() == [0.0, 0.5, 0.0]
    assert tracks.scores.tolist() == [0.8, 0.7, 0.0]
    assert tracks.trails_m[1, -2:, 0].tolist() == [10.0, 10.5]
    assert tracks.trails_m[0, -1].tolist() == [30.0, 0.0]
    assert np.isnan(tracks.trails_m[2]).all()


def test_the_table_lists_who_goes_on_then_who_is_new_then_who_is_hidden() -> None:
    tracker = GreedyTracker(NUSCENES, PUBLISHED)
    tracker.update(boxes_of(car(0.0), car(10.0), car(20.0)), 0.0, AT_ORIGIN)
    tracker.update(boxes_of(car(40.0), car(20.0), car(0.0)), 0.5, AT_ORIGIN)
    assert tracker.table.ids.tolist() == [3, 1, 4, 2]
    assert tracker.table.ages.tolist() == [1, 1, 1, 2]
    assert tracker.table.actives.tolist() == [2, 2, 1, 0]
    assert tracker.table.sightings.tolist() == [2, 2, 1, 1]
    assert tracker.table.score_sums == pytest.approx([1.8, 1.8, 0.9, 0.9])


def test_hungarian_ends_a_track_whose_partner_is_no_valid_one() -> None:
    tracker = GreedyTracker(NUSCENES, replace(PUBLISHED, hungarian=True))
    tracker.update(boxes_of(car(0.0), car(10.0)), 0.0, AT_ORIGIN)
    tracks = tracker.update(boxes_of(car(90.0), car(0.0)), 0.5, AT_ORIGIN)
    assert tracks.ids.tolist() == [3, 1]
    assert tracker.table.ids.tolist() == [1, 3]  # 2 was given to the car at 90 m, and is gone


@pytest.mark.parametrize("hungarian", [False, True])
def test_no_boxes_at_all(hungarian: bool) -> None:
    assert ids_of([[], [], []], replace(PUBLISHED, hungarian=hungarian)) == [[], [], []]


@pytest.mark.parametrize("hungarian", [False, True])
def test_ids_are_not_used_again_and_ended_tracks_leave_the_table(hungarian: bool) -> None:
    tracker = GreedyTracker(NUSCENES, GreedyRules(hungarian=hungarian))
    given: list[int] = []
    for moment in range(200):
        # Each car is seen once.
        tracks = tracker.update(boxes_of(car(10.0 * moment)), 0.5 * moment, AT_ORIGIN)
        given += tracks.ids.tolist()
        assert len(tracker.table) <= 4
    assert given == list(range(1, 201))


def test_a_step_leaves_its_arguments_as_they_are() -> None:
    tracker = GreedyTracker(NUSCENES)
    boxes = boxes_of(car(0.0), car(20.0), car(40.0, vx=1.0))
    table = tracker.step(TrackTable.empty(), boxes, 0.0, AT_ORIGIN).table
    before = {name: column.copy() for name, column in table.columns().items()}
    found = boxes_of(car(20.1), car(60.0))
    frozen = [found.center_global_m, found.velocity_global_mps, found.scores]
    for array in [*table.columns().values(), *frozen]:
        array.flags.writeable = False
    first = tracker.step(table, found, 0.5, AT_ORIGIN)
    second = tracker.step(table, found, 0.5, AT_ORIGIN)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(table, name), before[name])
        np.testing.assert_array_equal(getattr(first.table, name), getattr(second.table, name))
    assert len(tracker.table) == 0  # only `update` keeps one
    assert not len(first.queries)


def test_reset_begins_a_scene() -> None:
    tracker = GreedyTracker(NUSCENES)
    tracker.update(boxes_of(car(0.0)), 100.0, AT_ORIGIN)
    tracker.reset()
    # Earlier than the moment before, and as fast as it likes: the lag is 0.
    assert tracker.update(boxes_of(car(0.0, vx=99.0)), 1.0, AT_ORIGIN).ids.tolist() == [1]
    assert tracker.table.lags_s.tolist() == [0.0]


def test_time_that_goes_back_is_refused() -> None:
    tracker = GreedyTracker(NUSCENES)
    tracker.update(boxes_of(car(0.0)), 2.0, AT_ORIGIN)
    with pytest.raises(InputError, match="sample late is out of order"):
        tracker.update(boxes_of(car(0.0), token="late"), 1.0, AT_ORIGIN)
    assert tracker.table.timestamp_s == 2.0


def test_a_box_without_velocity_is_refused() -> None:
    boxes = boxes_of(car(0.0), car(9.0, vx=float("nan")), token="blind")
    with pytest.raises(InputError, match="sample blind: a box has no velocity"):
        GreedyTracker(NUSCENES).update(boxes, 0.0, AT_ORIGIN)


def test_a_box_of_a_foreign_class_is_refused() -> None:
    boxes = boxes_of(("unicorn", 0.0, 0.0, 0.0, 0.0, 0.9), token="odd")
    with pytest.raises(
        InputError, match="sample odd: a box is of class 'unicorn'; the classes are"
    ):
        GreedyTracker(NUSCENES).update(boxes, 0.0, AT_ORIGIN)
