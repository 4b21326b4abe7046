"""Which object a predicted box is at, and changes of ids, on hand-made ways."""

from __future__ import annotations

import numpy as np
import pytest

from streampetr_vit.report.track_boxes import TrackBoxes
from streampetr_vit.report.track_matches import matched, partners, switches

Row = tuple[int, str, float, float]  # frame, id, x, y


def _boxes(*rows: Row, kind: str = "car") -> TrackBoxes:
    rows = tuple(sorted(rows, key=lambda row: row[0]))
    frames, ids, x, y = zip(*rows, strict=True) if rows else ((),) * 4
    return TrackBoxes(
        np.array(frames, dtype=np.int64),
        np.array(ids, dtype=np.str_),
        np.array([kind] * len(rows), dtype=np.str_),
        np.stack((np.array(x, dtype=float), np.array(y, dtype=float)), axis=1),
        np.ones(len(rows)),
    )


def _way(name: str, y: float, frames: range) -> list[Row]:
    return [(frame, name, 3.0 * frame, y) for frame in frames]


def _named(true: TrackBoxes, found: TrackBoxes) -> list[tuple[int, str, str]]:
    return [
        (int(true.frames[a]), str(true.ids[a]), str(found.ids[b])) for a, b in matched(true, found)
    ]


def test_swapped_ids_are_two_switches() -> None:
    true = _boxes(*_way("a", 0, range(6)), *_way("b", 10, range(6)))
    found = _boxes(
        *_way("1", 0, range(4)),
        *_way("2", 10, range(4)),
        *_way("2", 0, range(4, 6)),
        *_way("1", 10, range(4, 6)),
    )
    pairs = matched(true, found)
    assert len(pairs) == 12
    assert [int(found.frames[row]) for row in switches(true, found, pairs)] == [4, 4]
    assert partners(true, found, pairs) == {"1": "a", "2": "b"}


def test_a_second_id_of_an_object_has_no_partner() -> None:
    true = _boxes(*_way("a", 0, range(7)))
    found = _boxes(*_way("1", 0.5, range(3)), *_way("2", 0.5, range(4, 7)), (6, "3", 90.0, 0.0))
    pairs = matched(true, found)
    # The object is lost in frame 3: its new id still is a switch.
    assert [int(found.frames[row]) for row in switches(true, found, pairs)] == [4]
    found = _boxes(*_way("1", 0.5, range(3)), *_way("2", 0.5, range(3, 7)))
    assert partners(true, found, matched(true, found)) == {"2": "a"}


def test_an_object_stays_with_its_id_though_another_is_nearer() -> None:
    true = _boxes(*_way("a", 0, range(3)))
    found = _boxes(*_way("1", 1.5, range(3)), *_way("2", 0.1, range(1, 3)))
    assert _named(true, found) == [(0, "a", "1"), (1, "a", "1"), (2, "a", "1")]
    # Until it is too far away.
    far = _boxes((0, "1", 0.0, 1.5), (1, "1", 3.0, 2.1), (1, "2", 3.0, 0.1))
    assert _named(true, far) == [(0, "a", "1"), (1, "a", "2")]


def test_pairs_are_one_to_one_and_the_sum_of_distances_is_smallest() -> None:
    true = _boxes((0, "a", 0.0, 0.0), (0, "b", 1.9, 0.0))
    found = _boxes((0, "1", 0.9, 0.0), (0, "2", -1.0, 0.0))
    # Each alone would take the first.
    assert _named(true, found) == [(0, "a", "2"), (0, "b", "1")]


@pytest.mark.parametrize(("y", "kind", "count"), [(2.0, "car", 1), (2.01, "car", 0), (0, "bus", 0)])
def test_no_match_beyond_two_metres_or_of_another_class(y: float, kind: str, count: int) -> None:
    true, found = _boxes((0, "a", 0.0, 0.0)), _boxes((0, "1", 0.0, y), kind=kind)
    assert len(matched(true, found)) == count


def test_nothing_to_match() -> None:
    some, none = _boxes(*_way("a", 0, range(3))), _boxes()
    for true, found in ((some, none), (none, some), (none, none)):
        assert matched(true, found) == []
        assert partners(true, found, []) == {} and switches(true, found, []) == []
