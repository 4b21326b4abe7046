"""The evaluator from sample dicts to files and numbers."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import print_csv_format
from detectron2.utils import comm
from hand_made_nuscenes import SCENES, VERSION, Layout, TrueSample, write_tables

from streampetr_vit.data.nuscenes.catalog import register_nuscenes
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.evaluation import NuScenesEvaluator
from streampetr_vit.structures import Detections

NOTHING = Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.long))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrueSample]]:
    root = tmp_path_factory.mktemp("evaluator")
    return root, write_tables(root, frames=2, boxes_per_class=3)


def _evaluator(
    root: Path,
    output_dir: Path,
    version: str = VERSION,
    split: str | Sequence[str] = "val",
    **kwargs: Any,
) -> NuScenesEvaluator:
    dataset = {"root": root, "version": version, "split": split}
    evaluator = NuScenesEvaluator(dataset, output_dir, **kwargs)
    evaluator.reset()
    return evaluator


def _feed(
    evaluator: NuScenesEvaluator, samples: list[TrueSample], detections: Detections | None = None
) -> None:
    for true in samples:
        chosen = true.visible() if detections is None else detections
        evaluator.process([true.sample()], [{"detections": chosen}])


def test_no_progress_bar_in_a_log_file(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, truth)
    evaluator.evaluate()
    captured = capfd.readouterr()
    assert "\r" not in captured.err + captured.out
    assert "%|" not in captured.err


def test_perfect_detections(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path / "inference")
    _feed(evaluator, truth)
    with caplog.at_level(logging.INFO):
        results = evaluator.evaluate()
        print_csv_format(results)
    numbers = results["bbox3d"]
    assert list(numbers)[:7] == ["NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE"]
    assert numbers["NDS"] == pytest.approx(1, abs=1e-6)
    assert {f"AP_{name}" for name in NUSCENES.class_names} <= set(numbers)
    assert {"mAP_0.5m", "mAP_1m", "mAP_2m", "mAP_4m"} <= set(numbers)
    assert all(isinstance(value, float) for value in numbers.values())
    assert "NDS,mAP,mATE" in caplog.text
    table = next(r.getMessage() for r in caplog.records if "Per-class results" in r.getMessage())
    starts = [line.split()[0] for line in table.splitlines() if line]
    order = ["mAP:", "mATE:", "mASE:", "mAOE:", "mAVE:", "mAAE:", "NDS:", "Eval", "Per-class"]
    assert starts[starts.index("mAP:") :][: len(order)] == order
    assert sorted(starts[-10:]) == sorted(NUSCENES.class_names)
    results_file = json.loads((tmp_path / "inference" / "results_nusc.json").read_text())
    assert set(results_file["results"]) == {true.token for true in truth}
    assert results_file["meta"]["use_camera"] is True
    summary = json.loads((tmp_path / "inference" / "metrics_summary.json").read_text())
    assert summary["nd_score"] == numbers["NDS"]
    details = json.loads((tmp_path / "inference" / "metrics_details.json").read_text())
    assert len(details) == 40


def test_same_numbers_as_the_devkit_main(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path
) -> None:
    """On a predefined split our call equals the devkit's own entry point."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    root, truth = dataset
    evaluator = _evaluator(root, tmp_path / "ours")
    generator = torch.Generator().manual_seed(0)
    for true in truth:
        visible = true.visible()
        noise = torch.randn(visible.boxes.shape, generator=generator) * 0.2
        noise[:, 3:6] = noise[:, 3:6].abs()
        scores = torch.rand(len(visible), generator=generator)
        noisy = Detections(visible.boxes + noise, scores, visible.labels)
        evaluator.process([true.sample()], [{"detections": noisy}])
    evaluator.evaluate()
    theirs = DetectionEval(
        NuScenes(VERSION, str(root), verbose=False),
        config_factory("detection_cvpr_2019"),
        str(evaluator.results_path),
        "val",
        str(tmp_path / "theirs"),
        verbose=False,
    ).main(render_curves=False)
    ours = json.loads((tmp_path / "ours" / "metrics_summary.json").read_text())
    for key in ("mean_ap", "nd_score", "mean_dist_aps", "tp_errors"):
        assert ours[key] == theirs[key], key
    assert set(theirs) <= set(ours)


def test_scene_list_and_custom_split(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path
) -> None:
    root, truth = dataset
    some = [true for true in truth if true.token.startswith(tuple(SCENES[:2]))]
    (root / VERSION / "splits.json").write_text(json.dumps({"two": SCENES[:2]}))
    for number, split in enumerate((SCENES[:2], "two")):
        evaluator = _evaluator(root, tmp_path / str(number), split=split)
        _feed(evaluator, some)
        assert evaluator.evaluate()["bbox3d"]["NDS"] == pytest.approx(1, abs=1e-6)


def test_no_detections_give_zeros(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, truth, NOTHING)
    numbers = evaluator.evaluate()["bbox3d"]
    assert numbers["NDS"] == numbers["mAP"] == numbers["AP_car"] == 0
    assert all(numbers[name] == 1 for name in ("mATE", "mASE", "mAOE", "mAVE", "mAAE"))
    assert "no sample has a detection" in caplog.text


def test_absent_classes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write_tables(tmp_path, layout=Layout(classes=("car", "pedestrian")), frames=3)
    evaluator = _evaluator(tmp_path, tmp_path / "out")
    _feed(evaluator, truth)
    with caplog.at_level(logging.INFO):
        numbers = evaluator.evaluate()["bbox3d"]
    assert numbers["mAP"] == pytest.approx(0.2)
    assert numbers["mAP_present"] == pytest.approx(1)
    assert "Mean over present classes: NDS 1.0000, mAP 1.0000" in caplog.text


def test_missing_sample(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, truth[1:])
    with pytest.raises(ValueError, match=rf"1 of 8 samples \(first: {truth[0].token}\) got no"):
        evaluator.evaluate()


def test_unknown_sample(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, [*truth, replace(truth[0], token="elsewhere")])
    with pytest.raises(ValueError, match=r"1 of 9 samples \(first: elsewhere\) are not in"):
        evaluator.evaluate()


def test_duplicate_sample(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, [*truth, truth[2]])
    with pytest.raises(ValueError, match=rf"first: {truth[2].token}\) were evaluated more than"):
        evaluator.evaluate()


def test_samples_of_the_loader_are_compared_before_anything_runs(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path
) -> None:
    root, truth = dataset
    tokens = [true.token for true in truth]
    evaluator = _evaluator(root, tmp_path)
    evaluator.check(tokens)
    evaluator.check()  # a loader that does not tell
    for given, message in (
        (tokens[1:], "1 of 8 samples .* got no detections"),
        ([*tokens, "elsewhere"], "1 of 9 samples .first: elsewhere. are not in"),
        ([*tokens, tokens[0]], "were evaluated more than once; .* or set allow_padding=True"),
    ):
        with pytest.raises(InputError, match=message):
            evaluator.check(given)
    _evaluator(root, tmp_path, allow_padding=True).check([*tokens, tokens[0]])


def test_padding_keeps_the_first(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path, allow_padding=True)
    _feed(evaluator, truth)
    _feed(evaluator, truth[:1], NOTHING)
    assert evaluator.evaluate()["bbox3d"]["NDS"] == pytest.approx(1, abs=1e-6)


def test_reset_begins_anew(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    """One evaluator serves every evaluation of a training."""
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    for detections in (NOTHING, None):
        _feed(evaluator, truth[:1], NOTHING)  # of an evaluation that was given up
        evaluator.reset()
        _feed(evaluator, truth, detections)
        numbers = evaluator.evaluate()["bbox3d"]
        assert numbers["mAP"] == pytest.approx(0 if detections is NOTHING else 1, abs=1e-6)
        evaluator.reset()


@pytest.mark.parametrize("form", [TrueSample.sample, lambda true: true.sample().as_dict()])
def test_pose_that_is_missing(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, form: Callable[[TrueSample], Any]
) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    true = replace(truth[0], lidar_to_ego=None, ego_to_global=None)
    message = f"'{true.token}' has no lidar_to_ego and ego_to_global: .* both poses"
    with pytest.raises(InputError, match=message):
        evaluator.process([form(true)], [{"detections": NOTHING}])


def test_dicts_need_no_more_than_token_and_poses(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path
) -> None:
    """Loaders of other detectron2 projects give no pictures to the evaluator."""
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    for true in truth:
        values = {
            "sample_token": true.token,
            "lidar_to_ego": true.lidar_to_ego,
            "ego_to_global": true.ego_to_global,
        }
        evaluator.process([values], [{"detections": true.visible()}])
        for name in values:
            with pytest.raises(InputError, match=f"has no {name}: "):
                partial = {key: value for key, value in values.items() if key != name}
                evaluator.process([partial], [{"detections": NOTHING}])
    assert evaluator.evaluate()["bbox3d"]["NDS"] == pytest.approx(1, abs=1e-6)


def test_detections_that_no_metric_can_take(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path
) -> None:
    root, truth = dataset
    evaluator = _evaluator(root, tmp_path)
    good = truth[0].visible()
    some = torch.arange(len(good)) < 0.2 * len(good)

    def refuse(message: str, **changes: torch.Tensor) -> None:
        with pytest.raises(InputError, match=message):
            _feed(evaluator, truth[:1], replace(good, **changes))

    refuse("allowed are 0 to 9", labels=good.labels + 1)
    many = Detections(good.boxes[:1].repeat(501, 1), torch.ones(501), torch.zeros(501).long())
    with pytest.raises(InputError, match="501 detections.*at most 500.*max_detections"):
        _feed(evaluator, truth[:1], many)
    broken = f"sample {truth[0].token}: {int(some.sum())} of its {len(good)} boxes are broken"
    for column, value in ((0, math.nan), (8, math.inf), (4, 0.0), (5, -1.0)):
        boxes = good.boxes.clone()
        boxes[some, column] = value
        refuse(f"{broken}, the first is .*{value}.*The network diverged", boxes=boxes)
    refuse(broken, scores=torch.where(some, math.nan, good.scores))


def test_a_few_broken_boxes_are_left_out_and_counted(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Early in a training the size of one of 300 boxes overflows: no reason to end."""
    root, truth = dataset
    clean, evaluator = _evaluator(root, tmp_path / "clean"), _evaluator(root, tmp_path / "broken")
    _feed(clean, truth)
    total = 0
    for true in truth:
        good = true.visible()
        extra = good.boxes[:3].clone()
        extra[0, 3], extra[1, 0] = math.inf, math.nan
        extra[2, 4] = 0
        added = Detections(extra, good.scores[:3], good.labels[:3])
        fields = ("boxes", "scores", "labels")
        # In front, so that what is left does not depend on the place.
        mixed = {k: torch.cat((getattr(added, k), getattr(good, k))) for k in fields}
        mixed = {k: torch.cat((v, getattr(good, k)[:20])) for k, v in mixed.items()}
        few = Detections(**mixed)
        total += len(few)
        evaluator.process([true.sample()], [{"detections": few}])
    with caplog.at_level(logging.WARNING):
        numbers = evaluator.evaluate()["bbox3d"]
    message = f"left out {3 * len(truth)} of {total} boxes"
    assert sum(message in record.getMessage() for record in caplog.records) == 1
    assert 0.5 < numbers["mAP"] <= 1
    evaluator.reset()
    caplog.clear()
    _feed(evaluator, truth)
    assert evaluator.evaluate()["bbox3d"]["mAP"] == clean.evaluate()["bbox3d"]["mAP"]
    assert "left out" not in caplog.text  # the count is forgotten with the boxes


def test_a_disk_that_is_too_small_for_the_results(
    dataset: tuple[Path, list[TrueSample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = dataset
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: _Usage())
    with pytest.raises(OutputError, match="has 1e-07 GB free, and results_nusc.json .* may need"):
        _evaluator(root, tmp_path / "a" / "b").check()


class _Usage:
    total, free = 1000, 100


def test_split_without_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write_tables(
        tmp_path, version="v1.0-test", scenes=["scene-0077"], layout=Layout(classes=())
    )
    evaluator = _evaluator(tmp_path, tmp_path / "out", version="v1.0-test", split="test")
    _feed(evaluator, truth)
    with caplog.at_level(logging.INFO):
        assert evaluator.evaluate() == {}
    assert "no annotations" in caplog.text
    assert evaluator.results_path.is_file()
    assert not (tmp_path / "out" / "metrics_summary.json").exists()


def test_dataset_from_the_catalog(dataset: tuple[Path, list[TrueSample]], tmp_path: Path) -> None:
    root, truth = dataset

    register_nuscenes("evaluator_test", root, VERSION, "val")
    try:
        evaluator = NuScenesEvaluator("evaluator_test", tmp_path)
        _feed(evaluator, truth)
        assert evaluator.evaluate()["bbox3d"]["NDS"] == pytest.approx(1, abs=1e-6)
    finally:
        DatasetCatalog.remove("evaluator_test")
        MetadataCatalog.remove("evaluator_test")


def _unannotated(root: Path, output_dir: Path) -> NuScenesEvaluator:
    # Named by its scenes, such a set needs no devkit: the processes start quickly.
    return _evaluator(root, output_dir, version="v1.0-test", split=["scene-0077"])


def _one_of_two(root: Path, output_dir: Path, truth: list[TrueSample]) -> None:
    rank = comm.get_rank()
    evaluator = _unannotated(root, output_dir)
    _feed(evaluator, truth[rank::2], _one_car(score=0.5))
    assert (evaluator.evaluate() is None) == (rank == 1)


def _one_car(score: float) -> Detections:
    box = torch.tensor([[3.0, 4.0, 0.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0]])
    return Detections(box, torch.tensor([score]), torch.tensor([0]))


def test_two_processes_equal_one(tmp_path: Path) -> None:
    truth = write_tables(
        tmp_path, version="v1.0-test", scenes=["scene-0077"], layout=Layout(classes=())
    )
    arguments = (tmp_path, tmp_path / "two", truth)
    alone = _unannotated(tmp_path, tmp_path / "one")
    url = f"file://{tmp_path}/rendezvous"
    launch(_one_of_two, arguments, num_processes=2, dist_url=url, use_gpu=False)
    _feed(alone, truth, _one_car(score=0.5))
    alone.evaluate()
    one, two = ((tmp_path / name / "results_nusc.json").read_text() for name in ("one", "two"))
    assert one == two
    assert one.count("vehicle.moving") == len(truth) == 4
