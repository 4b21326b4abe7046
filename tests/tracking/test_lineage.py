"""Scripted scenes: an object keeps its id as long as its query does."""

from __future__ import annotations

import numpy as np
import pytest
from toy_network import Shown, ToyNetwork

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import DatasetSpec, ObjectClass
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.tracking.greedy import GreedyTracker

PERIOD_S = 0.5  # of nuScenes
WEAK = 0.03  # below the least score


def pedestrian(query: str, x: float, y: float, **more: object) -> Shown:
    return Shown(query, "pedestrian", (x, y), **more)


def car(query: str, x: float, y: float, **more: object) -> Shown:
    return Shown(query, "car", (x, y), **more)


def crossing(moment: int) -> list[Shown]:
    """Two pedestrians pass each other. The network turns their velocities around."""
    way = 1.5 * PERIOD_S * (moment - 4)
    return [
        pedestrian("east", 10 + way, 5.0, velocity=(-1.5, 0)),
        pedestrian("west", 10 - way, 5.8, velocity=(1.5, 0), score=0.6),
    ]


def test_ids_of_a_scenes_first_moment():
    network = ToyNetwork()
    ids = network.see(
        3.0,
        [
            car("weak", 20, 0, score=0.2),
            car("good", 30, 0, score=0.7),
            car("at the limit", 10, 9, score=0.25),
            Shown("cone", "traffic_cone", (5, 5), score=0.9),
        ],
    )
    assert ids == {"weak": NO_ID, "good": 1, "at the limit": 2, "cone": NO_ID}
    assert network.memory == ids
    tracks = network.step.tracks[network.step.tracks.ids > 0]
    assert tracks.ages_s.tolist() == [0, 0]
    assert tracks.scores.tolist() == [0.7, 0.25]
    np.testing.assert_array_equal(tracks.trails_m[:, -1], [(30, 0), (10, 9)])
    assert np.isnan(tracks.trails_m[:, :-1]).all()
    assert network.table.next_id == 3 and network.table.timestamp_s == 3.0


def test_an_empty_moment_is_a_moment():
    network = ToyNetwork()
    assert network.see(0.0, []) == {}
    first = network.see(0.5, [car("a", 10, 0)])
    assert network.see(1.0, []) == {}
    assert network.see(1.5, [car("a", 10, 0)]) == first == {"a": 1}


def test_ids_do_not_swap_where_pedestrians_cross():
    lineage, greedy = ToyNetwork(), ToyNetwork(GreedyTracker(NUSCENES))
    by_lineage = [lineage.see(PERIOD_S * k, crossing(k)) for k in range(9)]
    by_place = [greedy.see(PERIOD_S * k, crossing(k)) for k in range(9)]
    assert all(ids == by_lineage[0] for ids in by_lineage)
    assert set(by_lineage[0].values()) == {1, 2}
    assert any(ids != by_place[0] for ids in by_place)  # else this scene would show nothing


@pytest.mark.parametrize("match_lost", [True, False])
def test_an_id_outlives_two_hidden_moments(match_lost: bool):
    network, seen = ToyNetwork(match_lost=match_lost), []
    for moment in range(8):
        hidden = moment in (3, 4)
        seen.append(
            network.see(
                PERIOD_S * moment,
                [
                    # Too far for matching by place, while it is hidden: the velocity is wrong.
                    car("other", 20, 0.5 * moment, score=WEAK if hidden else 0.6, yaw=1.5),
                    car("passes", 20 + 4.0 * moment, 8, velocity=(8, 0)),
                ],
            )
        )
        assert (seen[-1]["other"] == NO_ID) == hidden
    assert seen[-1] == seen[0] and set(seen[0].values()) == {1, 2}


def test_ids_come_back_with_a_camera():
    # Six moments without: longer than tracks are matched by place. Two of three move meanwhile.
    def moment(number: int, **more: object) -> list[Shown]:
        time = PERIOD_S * number
        return [
            car("ahead", 20 + 5 * time, 0, velocity=(5, 0), **more),
            pedestrian("beside", 10, 5 + time, velocity=(0, 1), **more),
            car("parked", 30, 10, **more),
        ]

    network = ToyNetwork()
    before = [network.see(PERIOD_S * k, moment(k)) for k in range(3)]
    for k in range(3, 9):
        assert set(network.see(PERIOD_S * k, moment(k, score=WEAK)).values()) == {NO_ID}
    after = [network.see(PERIOD_S * k, moment(k)) for k in range(9, 12)]
    assert all(ids == before[0] for ids in before + after)
    assert set(before[0].values()) == {1, 2, 3}


@pytest.mark.parametrize("hidden_s, same", [(4.9, True), (5.1, False)])
def test_an_id_that_was_gone_for_long_does_not_come_back(hidden_s: float, same: bool):
    network = ToyNetwork(match_lost=False)
    first = network.see(0.0, [car("a", 20, 0)])
    network.see(2.0, [car("a", 20, 0, score=WEAK)])
    assert (network.see(hidden_s, [car("a", 20, 0)]) == first) == same


def test_the_best_of_several_boxes_on_a_ray_changes_and_the_id_does_not():
    network, seen = ToyNetwork(), []
    for moment in range(8):
        near_is_best = moment % 2 == 0
        seen.append(
            network.see(
                PERIOD_S * moment,
                [
                    # The gate is 2.5 m, but they are one object.
                    car("near", 30, 0, score=0.5 if near_is_best else 0.4),
                    car("far", 33, 0, score=0.4 if near_is_best else 0.5),
                ],
            )
        )
        assert seen[-1] == {"near": 1, "far": NO_ID} if near_is_best else {"near": NO_ID, "far": 1}
        assert network.memory == {"near": 1, "far": 1}
    assert network.table.next_id == 2


@pytest.mark.parametrize("best", ["old", "new"])
def test_merged_boxes_take_the_longest_track(best: str):
    network = ToyNetwork(match_lost=False)
    other = "new" if best == "old" else "old"
    assert network.see(0.0, [car("old", 30, 0)]) == {"old": 1}
    apart = [car("old", 30, 0, score=0.4), car("new", 32.4, 2.4)]
    assert network.see(0.5, apart) == {"old": 1, "new": 2}
    # They come together; both could go on with the track that they carry. The old one has come
    # farther: the nearest track would be the new one.
    scores = {best: 0.9, other: 0.3}
    together = [
        car("new", 31.4, 1.6, score=scores["new"]),
        car("old", 31.2, 1.2, score=scores["old"]),
    ]
    assert network.see(1.0, together) == {best: 1, other: NO_ID}
    assert network.memory == {"old": 1, "new": 1}


def test_a_lineage_that_goes_over_to_another_object_is_dropped():
    network = ToyNetwork()
    assert network.see(0.0, [car("a", 20, 0)]) == {"a": 1}
    assert network.see(0.5, [car("a", 20, 10)]) == {"a": 2}
    assert network.memory == {"a": 2}
    # Too weak for a new id: what it carries is gone all the same.
    assert network.see(1.0, [car("a", 20, 20, score=0.2)]) == {"a": NO_ID}
    assert network.memory == {"a": NO_ID}


@pytest.mark.parametrize(
    "speed, period_s, limit_m",
    [(0.0, 0.5, 2.5), (4.0, 0.5, 3.5), (4.0, 0.1, 2.7), (10.0, 0.5, 4.0), (0.0, 4.0, 2.5)],
)
def test_the_gate_grows_with_the_way(speed: float, period_s: float, limit_m: float):
    for more, same in ((-0.01, True), (0.01, False)):
        network = ToyNetwork(match_lost=False)
        network.see(0.0, [car("a", 20, 0, velocity=(speed, 0))])
        place = (20 + speed * period_s, limit_m + more)
        ids = network.see(period_s, [car("a", *place)])
        assert ids == {"a": 1 if same else 2}


def test_an_id_has_one_class():
    network = ToyNetwork()
    bus = Shown("a", "bus", (20, 0), score=0.5)
    assert network.see(0.0, [car("a", 20, 0)]) == {"a": 1}
    assert network.see(0.5, [bus]) == {"a": 2}
    assert network.memory == {"a": 2}
    assert network.see(1.0, [car("a", 20, 0)]) == {
        "a": 1
    }  # by its place: it was there a second ago
    assert network.table.labels.tolist() == [NUSCENES.class_names.index(n) for n in ("car", "bus")]


@pytest.mark.parametrize(
    "car_score, hold, name",
    [(0.36, 0.7, "car"), (0.34, 0.7, "bus"), (0.36, 1.0, "bus"), (0.05, 0.01, "bus")],
)
def test_a_query_keeps_the_class_of_its_track(car_score: float, hold: float, name: str):
    network = ToyNetwork(class_hold=hold)
    assert network.see(0.0, [car("a", 20, 0)]) == {"a": 1}
    shown = [Shown("a", "bus", (20, 0), score=0.5, also=(("car", car_score),))]
    boxes = network.boxes(shown)
    assert network.see(0.5, shown) == {"a": 1 if name == "car" else 2}
    named = [n for n, i in zip(boxes.class_names, network.step.tracks.ids, strict=True) if i > 0]
    assert named == [name]


def test_own_classes_that_count_as_one_are_one():
    spec = DatasetSpec(
        [
            ObjectClass("taxi", ["a.taxi"], scored_as="car"),
            ObjectClass("van", ["a.van"], scored_as="car"),
            ObjectClass("ship", ["a.ship"]),
        ],
        ["CAM"],
    )
    network = ToyNetwork(spec=spec)
    assert network.see(0.0, [Shown("a", "taxi", (20, 0))]) == {"a": 1}
    assert network.see(0.5, [Shown("a", "van", (20, 0))]) == {"a": 1}
    assert network.see(1.0, [Shown("a", "ship", (20, 0))]) == {"a": 2}


def test_of_two_that_claim_an_id_the_better_box_has_it():
    network = ToyNetwork(match_lost=False)
    network.see(0.0, [car("a", 20, 0, velocity=(4, 0)), car("b", 21, 0, score=0.3)])
    assert network.memory == {"a": 1, "b": 1}
    ids = network.see(0.5, [car("a", 20, 2.2), car("b", 22, -1.9, score=0.3)])
    assert ids == {"a": 1, "b": 2}


def test_where_the_memory_rules_the_one_nearest_to_where_it_is_expected_has_it():
    network = ToyNetwork(match_lost=False, memory_first=True)
    network.see(0.0, [car("a", 20, 0, velocity=(4, 0)), car("b", 21, 0, score=0.3)])
    assert network.memory == {"a": 1, "b": 1}
    ids = network.see(0.5, [car("a", 20, 2.2), car("b", 22, -1.9, score=0.3)])
    assert ids == {"a": 2, "b": 1}
    assert network.memory == {"a": 2, "b": 1}


@pytest.mark.parametrize("match_lost, expected", [(True, 1), (False, 2)])
def test_a_box_without_lineage_takes_a_lost_track(match_lost: bool, expected: int):
    network = ToyNetwork(match_lost=match_lost)
    network.see(0.0, [car("a", 20, 0, velocity=(6, 0))])
    network.see(0.5, [])
    ids = network.see(1.0, [car("another", 26, 0, velocity=(6, 0))])
    assert ids == {"another": expected}


@pytest.mark.parametrize(
    "memory_first, expected", [(True, {"a": 1, "b": 2}), (False, {"a": 2, "b": 1})]
)
def test_a_better_box_nearby_takes_a_track_unless_the_memory_rules(
    memory_first: bool, expected: dict[str, int]
):
    network = ToyNetwork(memory_first=memory_first)
    network.see(0.0, [car("a", 20, 0)])
    assert network.see(0.5, [car("a", 20, 1.2), car("b", 20, -1.0, score=0.9)]) == expected


@pytest.mark.parametrize("bonus, expected", [(0.0, 2), (1.0, 1)])
def test_among_two_tracks_that_of_the_query_counts_as_nearer(bonus: float, expected: int):
    network = ToyNetwork(memory_bonus_m=bonus)
    network.see(0.0, [car("a", 20, 0), car("b", 20, 2.0)])
    ids = network.see(0.5, [car("a", 20, 1.2)])  # 0.4 m nearer to where b was
    assert ids == {"a": expected}


@pytest.mark.parametrize(
    "period_s, moments, same",
    [(0.5, 3, True), (0.5, 4, False), (0.05, 24, True), (0.05, 26, False), (4.0, 3, True)],
)
def test_how_long_a_lost_track_is_matched(period_s: float, moments: int, same: bool):
    network = ToyNetwork()
    network.see(0.0, [car("a", 20, 0)])
    for moment in range(1, moments):
        network.see(period_s * moment, [])
    assert network.see(period_s * moments, [car("another", 20, 0)]) == {"another": 1 if same else 2}


@pytest.mark.parametrize("rate_hz", [2, 10, 20])
def test_moments_in_between_are_not_remembered(rate_hz: int):
    # At 10 m/s, and an object that appears where nothing is remembered.
    network, seen, per_memory = ToyNetwork(), [], rate_hz // 2
    for moment in range(4 * rate_hz):
        time = moment / rate_hz
        shown = [
            car("first", 10 + 10 * time, 0, velocity=(10, 0)),
            car("oncoming", 60 - 10 * time, 2.5, velocity=(-10, 0), score=0.4),
        ]
        if time > 1.15:
            shown.append(pedestrian("late", 15, 6 - time, velocity=(0, -1)))
        seen.append(network.see(time, shown, remembered=moment % per_memory == 0))
    assert all(ids["first"] == 1 and ids["oncoming"] == 2 for ids in seen)
    assert {ids["late"] for ids in seen if "late" in ids} == {3}
    ages = network.step.tracks.ages_s.tolist()
    assert ages[0] == pytest.approx((4 * rate_hz - 1) / rate_hz)


@pytest.mark.parametrize("score, expected", [("detection", 0.4), ("mean", 0.6)])
def test_the_score_of_a_track(score: str, expected: float):
    network = ToyNetwork(score=score)
    for moment, seen in enumerate((0.9, WEAK, 0.5, 0.4)):
        network.see(PERIOD_S * moment, [car("a", 20, 0, score=seen)])
    assert network.step.tracks.scores.tolist() == [pytest.approx(expected)]


def test_a_tracker_without_a_network_goes_by_place():
    network = ToyNetwork()
    first = network.tracker.update(network.boxes([car("a", 20, 0)]), 0.0, network.pose())
    again = network.tracker.update(network.boxes([car("a", 21, 0)]), 0.5, network.pose())
    assert first.ids.tolist() == again.ids.tolist() == [1]
    network.tracker.reset()
    fresh = network.tracker.update(network.boxes([car("a", 50, 0)]), 0.0, network.pose())
    assert fresh.ids.tolist() == [1]
