"""What holds in any scene, shown in crowded ones."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
from toy_network import Shown, ToyNetwork, ids_of

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.tracking.lineage import LineageRules, LineageTracker

NAMES = ("car", "truck", "bus", "pedestrian", "bicycle", "traffic_cone")


def soup(random: np.random.Generator, moments: int, queries: int) -> list[list[Shown]]:
    """Queries of every kind that jump, flicker, flip their class, and lie upon each other."""
    places = random.uniform(-30, 30, (queries, 2))
    velocities = random.normal(0, 4, (queries, 2))
    names = random.choice(NAMES, queries)
    made = []
    for _ in range(moments):
        places = places + 0.5 * velocities + random.normal(0, 0.5, places.shape)
        jumps = random.random(queries) < 0.05
        places[jumps] = random.uniform(-30, 30, (int(jumps.sum()), 2))
        flips = random.random(queries) < 0.1
        names[flips] = random.choice(NAMES, int(flips.sum()))
        shown = [
            Shown(
                f"query {q}",
                str(names[q]),
                (float(places[q, 0]), float(places[q, 1])),
                score=float(random.random()),
                velocity=(float(velocities[q, 0]), float(velocities[q, 1])),
                yaw=float(random.uniform(-3, 3)),
                also=(("pedestrian", float(random.random())),) if names[q] == "bus" else (),
            )
            for q in range(queries)
            if random.random() < 0.8
        ]
        made.append(shown)
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rules", [{}, {"match_lost": False}, {"merge": False, "score": "mean"}])
def test_ids_are_unique_and_never_come_twice(seed: int, rules: dict[str, object]):
    network, born, kinds = ToyNetwork(**rules), set(), {}
    for moment, shown in enumerate(soup(np.random.default_rng(seed), 25, 40)):
        next_id, boxes = network.table.next_id, network.boxes(shown)
        network.see(0.5 * moment, shown)
        tracks, table = network.step.tracks, network.table
        ids = ids_of(tracks)
        assert len(set(ids)) == len(ids) and len(tracks) == len(boxes)
        new = {i for i in ids if i not in born}
        assert new == set(range(next_id, table.next_id))
        born |= new
        for name, track in zip(boxes.class_names, tracks.ids.tolist(), strict=True):
            assert track == NO_ID or kinds.setdefault(track, name) == name
        assert len(set(table.ids.tolist())) == len(table) and set(ids) <= set(table.ids.tolist())
        # No query is told two ids, and none that the table does not know.
        assert len(set(network.step.queries.tolist())) == len(network.step.queries)
        assert set(network.step.query_ids.tolist()) - {NO_ID} == set(ids)
    assert len(born) > 40


def test_a_step_changes_none_of_its_arguments():
    network = ToyNetwork()
    for moment, shown in enumerate(soup(np.random.default_rng(5), 6, 40)):
        boxes, table, pose = network.boxes(shown), network.table, network.pose()
        before = copy.deepcopy((boxes, table, pose))
        first = network.tracker.step(table, boxes, 0.5 * moment, pose)
        after_first = copy.deepcopy(first)
        second = network.tracker.step(table, boxes, 0.5 * moment, pose)
        for old, new in zip(before, (boxes, table, pose), strict=True):
            assert_equal(old, new)
        assert_equal(first, second)
        network.see(0.5 * moment, shown)
        # Nor does a later step change an earlier result.
        network.tracker.step(first.table, boxes, 0.5 * moment + 0.5, pose)
        assert_equal(first, after_first)


def assert_equal(one: object, other: object) -> None:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if hasattr(a, "__dataclass_fields__"):
            assert_equal(a, b)
        else:
            np.testing.assert_array_equal(a, b, err_msg=field.name)


def test_the_place_of_the_map_does_not_matter():
    # In UTM a car is thousands of kilometres from the origin: float32 would lose half a metre.
    here, far = ToyNetwork(), ToyNetwork(vehicle_m=(512_345.0, 5_412_345.0))
    for moment, shown in enumerate(soup(np.random.default_rng(7), 15, 60)):
        moved = [
            replace(one, place=(one.place[0] + 512_345.0, one.place[1] + 5_412_345.0))
            for one in shown
        ]
        assert here.see(0.5 * moment, shown) == far.see(0.5 * moment, moved)


@pytest.mark.parametrize("rate_hz, max_tracks", [(2, 1000), (20, 150)])
def test_the_table_stays_small(rate_hz: int, max_tracks: int):
    # 20 new cars in each moment.
    random, network = np.random.default_rng(1), ToyNetwork(max_tracks=max_tracks)
    for moment in range(8 * rate_hz):
        places = random.uniform(-400, 400, (20, 2)).tolist()
        shown = [Shown(f"{moment} {n}", "car", tuple(at)) for n, at in enumerate(places)]
        network.see(moment / rate_hz, shown)
        gone_s = moment / rate_hz - network.table.last_seen_s
        # Five seconds, or the newest of `max_tracks`.
        assert gone_s.max() < min(5.0, (max_tracks / 20 + 1) / rate_hz)
    assert 150 < len(network.table) <= min(max_tracks + 20, 5 * 20 * rate_hz)


def test_the_future_does_not_matter():
    scenes = [soup(np.random.default_rng(seed), 12, 30) for seed in (1, 2)]
    joined = [scenes[0][:6] + scene[6:] for scene in scenes]
    seen = []
    for scene in joined:
        network = ToyNetwork()
        seen.append([network.see(0.5 * k, shown) for k, shown in enumerate(scene)])
    assert seen[0][:6] == seen[1][:6] and seen[0] != seen[1]


def test_boxes_must_say_of_which_query_they_are():
    network = ToyNetwork()
    boxes = network.boxes([Shown("a", "car", (20, 0))])
    for column in ("queries", "lineages"):
        with pytest.raises(InputError, match="sample a moment: .*query.*greedy"):
            network.tracker.update(replace(boxes, **{column: None}), 0.0, network.pose())


def test_moments_come_in_their_order():
    network = ToyNetwork()
    network.see(1.0, [Shown("a", "car", (20, 0))])
    with pytest.raises(InputError, match="out of order"):
        network.see(0.5, [Shown("a", "car", (20, 0))])


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("min_score", 1.5, "0 to 1"),
        ("min_new_score", "high", "0 to 1"),
        ("class_hold", 0.0, "above 0"),
        ("gate_limit_m", -1.0, "0 or more"),
        ("keep_lineage_s", float("inf"), "0 or more"),
        ("keep_s", float("nan"), "0 or more"),
        ("max_age", 2.5, "whole number"),
        ("max_tracks", True, "whole number"),
        ("match_lost", 1, "true or false"),
        ("radii", "per class", "per_class"),
        ("radii", {"car": 0.0}, "above 0"),
        ("score", "median", "mean"),
    ],
)
def test_rules_are_checked(name: str, value: object, allowed: str):
    with pytest.raises(InputError, match=f"{name}.* is .*{allowed}"):
        LineageRules(**{name: value})


def test_radii_name_kinds():
    with pytest.raises(InputError, match="radii has 'lorry'; .*truck"):
        LineageTracker(NUSCENES, LineageRules(radii={"lorry": 2.0}))
    tracker = LineageTracker(NUSCENES, LineageRules(radii={"car": 0.5}))
    network = ToyNetwork(tracker)
    network.see(0.0, [Shown("a", "car", (20, 0)), Shown("b", "bus", (20, 9))])
    ids = network.see(0.5, [Shown("a", "car", (20, 0.6)), Shown("b", "bus", (20, 9.6))])
    assert ids == {"a": 3, "b": 2}
