"""The evaluator of tracks at its edges: gaps, nothing found, no truth, processes, bad boxes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from hand_made_nuscenes import SCENES, VERSION, Layout, TrueSample, write_tables
from tracking_by_query import QueryTracker

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation import NuScenesTrackingEvaluator, evaluate_tracks
from streampetr_vit.evaluation.tracking_tables import printed_tracking_table, tracking_numbers
from streampetr_vit.structures import Detections, Tracks
from streampetr_vit.tracking.greedy import GreedyRules

CAR = NUSCENES.class_names.index("car")
Data = tuple[Path, list[TrueSample]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """One scene with cars and pedestrians."""
    root = tmp_path_factory.mktemp("edges")
    layout = Layout(classes=("car", "pedestrian"))
    return root, write_tables(root, SCENES[:1], frames=6, boxes_per_class=2, layout=layout)


def _evaluator(root: Path, out: Path, **options: object) -> NuScenesTrackingEvaluator:
    dataset = {"root": root, "version": VERSION, "split": "val"}
    return NuScenesTrackingEvaluator(dataset, out, **{"tracker": "greedy", **options})


def _feed(evaluator: NuScenesTrackingEvaluator, truth: Iterable[TrueSample]) -> None:
    for true in truth:
        evaluator.process([true.sample()], [{"detections": true.visible()}])


@pytest.mark.parametrize("bridged", [True, False])
def test_a_gap_is_a_fragment_where_the_id_is_lost(
    data: Data, tmp_path: Path, bridged: bool
) -> None:
    root, truth = data
    rules = GreedyRules(max_age=3 if bridged else 1, keep_s=0.0)
    evaluator = _evaluator(root, tmp_path, tracker=rules)
    for number, true in enumerate(truth):
        found = true.visible()
        hidden = found.labels == CAR if number == 2 else torch.zeros(len(found), dtype=torch.bool)
        evaluator.process([true.sample()], [{"detections": found[~hidden]}])
    numbers = evaluator.evaluate()["tracking"]
    assert numbers["FRAG_pedestrian"] == numbers["IDS_pedestrian"] == 0
    # The devkit itself fills the gaps of an id that comes back.
    lost = numbers["FRAG_car"], numbers["IDS_car"], numbers["FN"]
    assert lost == (0, 0, 0) if bridged else min(lost) > 0


def test_nothing_found_is_a_number_and_silent(
    data: Data, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, truth = data
    evaluator = _evaluator(root, tmp_path)
    for true in truth:
        evaluator.process([true.sample()], [{"detections": true.visible()[:0]}])
    numbers = evaluator.evaluate()["tracking"]
    assert numbers["AMOTA"] == numbers["AMOTA_car"] == 0 and numbers["AMOTP"] == 2
    assert all(np.isfinite(value) for value in numbers.values())
    text = (tmp_path / "tracking" / "metrics_summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    summary = json.loads(text)
    assert tracking_numbers(summary) == numbers
    assert "No true boxes of bicycle, bus, motorcycle" in printed_tracking_table(summary)
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err and "Warning" not in err


def test_a_split_without_annotations_has_tracks_and_no_numbers(tmp_path: Path) -> None:
    truth = write_tables(
        tmp_path, version="v1.0-test", scenes=["scene-0077"], layout=Layout(classes=())
    )
    evaluator = _without_truth(tmp_path, tmp_path / "out")
    evaluator.check([true.token for true in truth])
    _feed_car(evaluator, truth)
    assert evaluator.evaluate() == {}
    results = json.loads(evaluator.results_path.read_text())["results"]
    assert [[box["tracking_id"] for box in results[true.token]] for true in truth] == [["1"]] * 4
    assert not (tmp_path / "out" / "tracking" / "metrics_summary.json").exists()


def _without_truth(root: Path, out: Path) -> NuScenesTrackingEvaluator:
    dataset = {"root": root, "version": "v1.0-test", "split": ["scene-0077"]}
    return NuScenesTrackingEvaluator(dataset, out, tracker="greedy")


def _feed_car(evaluator: NuScenesTrackingEvaluator, truth: Iterable[TrueSample]) -> None:
    """A car that keeps beside the vehicle, which drives."""
    box = torch.tensor([[3.0, 4.0, 0.0, 4.0, 2.0, 1.5, 0.3, 0.0, 3.0]])
    for true in truth:
        car = Detections(box, torch.tensor([0.5]), torch.tensor([CAR]))
        evaluator.process([true.sample()], [{"detections": car}])


def _one_of_two(root: Path, out: Path, truth: list[TrueSample]) -> None:
    rank = comm.get_rank()
    evaluator = _without_truth(root, out)
    _feed_car(evaluator, truth[rank::2])
    assert (evaluator.evaluate() is None) == (rank == 1)


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    truth = write_tables(
        tmp_path, version="v1.0-test", scenes=["scene-0077"], layout=Layout(classes=())
    )
    url = f"file://{tmp_path}/rendezvous"
    launch(_one_of_two, (tmp_path, tmp_path / "two", truth), num_processes=2, dist_url=url,
           use_gpu=False)  # fmt: skip
    alone = _without_truth(tmp_path, tmp_path / "one")
    _feed_car(alone, truth)
    alone.evaluate()
    one, two = (
        (tmp_path / name / "tracking" / "results_nusc.json").read_text() for name in ("one", "two")
    )
    assert one == two and one.count('"tracking_id": "1"') == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_samples_does_not_matter(data: Data, tmp_path: Path, seed: int) -> None:
    root, truth = data
    mixed = [*truth, truth[1]]  # a loader that pads gives one twice
    random.Random(seed).shuffle(mixed)
    files = []
    for name, samples in (("sorted", truth), ("mixed", mixed)):
        evaluator = _evaluator(root, tmp_path / name, allow_padding=True)
        _feed(evaluator, samples)
        evaluator.evaluate()
        files.append(evaluator.results_path.read_text())
    assert files[0] == files[1]
    refuses = _evaluator(root, tmp_path / "refused")
    _feed(refuses, mixed)
    with pytest.raises(InputError, match="more than once"):
        refuses.evaluate()


def _many(true: TrueSample) -> Detections:
    """So many boxes that a broken one is no reason to refuse all."""
    return true.visible()[torch.arange(12) % len(true.visible())]


def test_tracks_stay_with_their_boxes_when_others_are_left_out(data: Data, tmp_path: Path) -> None:
    root, truth = data
    evaluator = _evaluator(root, tmp_path, tracker=QueryTracker(NUSCENES))
    assert evaluator.stream_tracker is not None
    for number, true in enumerate(truth):
        kept, base = _many(true), 1000 * number
        # A broken box before all others, and one far out of range after the first.
        boxes = torch.cat([kept.boxes[:1], kept.boxes[:1], kept.boxes[:1], kept.boxes[1:]])
        boxes[0, 0], boxes[2, :2] = float("nan"), 500.0
        labels = torch.cat([kept.labels[:1].repeat(3), kept.labels[1:]])
        ids = base + np.array([900, 1, 901, *range(2, len(kept) + 1)])
        tracks = replace(Tracks.none(len(ids)), ids=ids, scores=1 / ids)
        found = Detections(boxes, torch.ones(len(boxes)), labels)
        evaluator.process([true.sample()], [{"detections": found, "tracks": tracks}])
    evaluator.evaluate()
    results = json.loads(evaluator.results_path.read_text())["results"]
    for number, true in enumerate(truth):
        ids = [1000 * number + place for place in range(1, len(_many(true)) + 1)]
        boxes = results[true.token]
        assert [box["tracking_id"] for box in boxes] == [str(id_) for id_ in ids]
        assert [box["tracking_score"] for box in boxes] == [1 / id_ for id_ in ids]


@pytest.mark.parametrize("missing", ["first", "middle", "last"])
def test_a_sample_that_was_not_evaluated_is_named(data: Data, tmp_path: Path, missing: str) -> None:
    root, truth = data
    index = {"first": 0, "middle": 3, "last": -1}[missing]
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, [true for true in truth if true is not truth[index]])
    with pytest.raises(InputError, match=f"first: {truth[index].token}"):
        evaluator.evaluate()
    assert not evaluator.results_path.exists()


def test_whole_numbers_and_unsorted_samples_are_accepted(data: Data, tmp_path: Path) -> None:
    root, truth = data
    evaluator = _evaluator(root, tmp_path)
    _feed(evaluator, truth)
    numbers = evaluator.evaluate()["tracking"]
    content = json.loads(evaluator.results_path.read_text())
    content["results"] = dict(reversed(content["results"].items()))
    for number, boxes in enumerate(content["results"].values()):
        for box in boxes:
            box["tracking_score"] = 1
            if number % 2:  # the number and the text are one id
                box["tracking_id"] = int(box["tracking_id"])
    path = tmp_path / "unsorted.json"
    path.write_text(json.dumps(content))
    records = load_split(root, VERSION, "val")
    summary = evaluate_tracks(path, records, tmp_path / "again")
    assert tracking_numbers(summary) == numbers
    first, second, *_ = content["results"][truth[0].token]
    first["tracking_id"], second["tracking_id"] = 7, "7"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two boxes have the id '7'"):
        evaluate_tracks(path, records, tmp_path / "again")
