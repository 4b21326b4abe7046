"""Numbers and text from a devkit summary."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streampetr_vit.evaluation.metric_tables import (
    ERROR_NAMES,
    absent_classes,
    ap_at_distances,
    present_class_means,
    printed_table,
    results_for_detectron2,
)


def _summary() -> dict[str, Any]:
    """Cars are found, no true cone exists."""
    car = {"0.5": 0.1, "1.0": 0.3, "2.0": 0.5, "4.0": 0.7}
    perfect = dict.fromkeys(ERROR_NAMES.values(), 0.2)
    nothing = {**dict.fromkeys(ERROR_NAMES.values(), math.nan), "trans_err": 1.0, "scale_err": 1.0}
    return {
        "label_aps": {"car": car, "traffic_cone": dict.fromkeys(car, 0.0)},
        "mean_dist_aps": {"car": 0.4, "traffic_cone": 0.0},
        "mean_ap": 0.2,
        "label_tp_errors": {"car": perfect, "traffic_cone": nothing},
        "tp_errors": {**perfect, "trans_err": 0.6, "scale_err": 0.6},
        "nd_score": 0.42,
        "eval_time": 2.5,
        "num_gt_boxes": {"car": 10, "traffic_cone": 0},
    }


def test_ap_at_distances() -> None:
    expected = {"mAP_0.5m": 0.05, "mAP_1m": 0.15, "mAP_2m": 0.25, "mAP_4m": 0.35}
    assert ap_at_distances(_summary()) == pytest.approx(expected)


def test_distances_are_sorted_as_numbers() -> None:
    summary = {"label_aps": {"car": {"10.0": 0.5, "2.0": 0.25, "0.5": 0.125}}}
    expected = [("mAP_0.5m", 0.125), ("mAP_2m", 0.25), ("mAP_10m", 0.5)]
    assert list(ap_at_distances(summary).items()) == expected


def test_means_over_present_classes() -> None:
    assert absent_classes(_summary()) == ["traffic_cone"]
    means = present_class_means(_summary())
    assert means["mAP"] == pytest.approx(0.4)
    assert means["mATE"] == pytest.approx(0.2)
    assert means["NDS"] == pytest.approx((5 * 0.4 + 5 * 0.8) / 10)


def test_undefined_errors_count_as_one() -> None:
    summary = _summary()
    summary["num_gt_boxes"] = {"car": 0, "traffic_cone": 5}
    means = present_class_means(summary)
    assert math.isnan(means["mAVE"])
    assert means["NDS"] == 0


def test_results_have_names_that_loggers_take() -> None:
    results = results_for_detectron2(_summary())
    assert list(results)[:2] == ["NDS", "mAP"]
    assert results["mAP_present"] == pytest.approx(0.4)
    assert all(name.replace("_", "").replace(".", "").isalnum() for name in results)


def test_printed_table() -> None:
    lines = printed_table(_summary()).splitlines()
    assert lines[:3] == ["mAP: 0.2000", "mATE: 0.6000", "mASE: 0.6000"]
    assert lines[6:8] == ["NDS: 0.4200", "Eval time: 2.5s"]
    assert lines[-3].split() == ["Object", "Class", "AP", "ATE", "ASE", "AOE", "AVE", "AAE"]
    assert lines[-2].split() == ["car", "0.400", *["0.200"] * 5]
    assert lines[-1].split()[-3:] == ["nan"] * 3
