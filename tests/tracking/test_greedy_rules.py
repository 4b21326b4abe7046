"""Rules of the greedy tracker: what is refused, and trackers by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.tracking.building import TRACKER_NAMES, build_tracker
from streampetr_vit.tracking.greedy import GreedyRules, GreedyTracker


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("radii", "Uniform"),
        ("radii", 2.5),
        ("radii", None),
        ("radii", np.ones(2)),
        ("radii", {"car": 0.0}),
        ("radii", {"car": math.nan}),
        ("radii", {"car": math.inf}),
        ("radii", {"car": "4"}),
        ("hungarian", 1),
        ("hungarian", "no"),
        ("score_threshold", -0.1),
        ("score_threshold", 1.1),
        ("score_threshold", math.nan),
        ("score_threshold", "0.3"),
        ("score_threshold", True),
        ("max_age", 0),
        ("max_age", 2.5),
        ("max_age", True),
        ("keep_s", -1.0),
        ("keep_s", math.inf),
        ("keep_s", math.nan),
        ("forget_when_empty", None),
    ],
)
def test_wrong_rules_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^tracker: {field}.* it must be "):
        GreedyRules(**{field: value})


def test_radii_of_unknown_kinds_are_refused() -> None:
    rules = GreedyRules({"car": 2.0, "barrier": 1.0, "cat": 1.0})
    with pytest.raises(InputError, match="radii has 'barrier', 'cat'; the kinds that are tracked"):
        GreedyTracker(NUSCENES, rules)


def test_radii_of_a_configuration_become_a_dict_of_their_own() -> None:
    given = OmegaConf.create({"car": 3})
    rules = GreedyRules(given)
    given.car = 4
    assert rules.radii == {"car": 3} and type(rules.radii) is dict


def test_trackers_by_name_by_rules_and_ready_made() -> None:
    by_name = build_tracker("greedy", NUSCENES)
    assert isinstance(by_name, GreedyTracker) and by_name.rules == GreedyRules()
    assert (by_name.name, by_name.reads_memory) == ("greedy", False)
    rules = GreedyRules("per_class", hungarian=True)
    by_rules = build_tracker(rules, NUSCENES)
    assert isinstance(by_rules, GreedyTracker) and by_rules.rules == rules
    assert build_tracker(by_rules, NUSCENES) is by_rules


@pytest.mark.parametrize("name", TRACKER_NAMES)
def test_every_name_has_a_tracker(name: str) -> None:
    assert build_tracker(name, NUSCENES).name == name


@pytest.mark.parametrize("chosen", ["Greedy", "", 3, None, GreedyRules])
def test_what_is_no_tracker_is_refused(chosen: Any) -> None:
    with pytest.raises(InputError, match="it must be lineage or greedy, or the rules of one"):
        build_tracker(chosen, NUSCENES)
