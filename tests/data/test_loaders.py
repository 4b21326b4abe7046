"""Loaders: the same samples with any number of workers, resumable, counting what was broken."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import handmade_tables
import pytest
import torch
from detectron2.utils import comm
from tiny_detector import make_sample

from streampetr_vit.data.batch import Batch
from streampetr_vit.data.build import (
    build_test_loader,
    build_train_loader,
    build_window_loader,
    default_workers,
)
from streampetr_vit.data.loaders import TrainLoader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.structures import Sample
from streampetr_vit.structures.tensors import map_tensors

IMAGE = ImageAugmentation((16, 40), (0.3, 0.5))


def _dataset(root: Path, split: str | None = None) -> dict:
    return {"root": root, "version": handmade_tables.VERSION, "split": split}


def _train_loader(root: Path, **options) -> TrainLoader:
    mapper = NuScenesMapper(training=True, image_aug=IMAGE, scene_aug=SceneAugmentation())
    options = {"num_workers": 0, "sequence_split": 2, "rank": 0, "world_size": 1, **options}
    return build_train_loader(_dataset(root), mapper, lanes_per_rank=2, **options)


def _digest(batches: list[list[Sample]]) -> list:
    return [
        [
            (
                sample.sample_token,
                bool(sample.continues_stream),
                int(sample.images.long().sum()),
                sample.lidar_to_image.sum().item(),
            )
            for sample in batch
        ]
        for batch in batches
    ]


def test_order_and_draws_do_not_depend_on_workers(handmade_root: Path) -> None:
    expected = None
    for workers in (0, 1, 2):
        batches = list(islice(_train_loader(handmade_root, num_workers=workers), 8))
        expected = expected or _digest(batches)
        assert _digest(batches) == expected
    assert len({tuple(row[2:]) for batch in expected for row in batch}) == 16  # all draws differ


def test_resume_equals_uninterrupted(handmade_root: Path) -> None:
    whole = _digest(list(islice(_train_loader(handmade_root), 12)))
    first = _train_loader(handmade_root, num_workers=1)
    iterator = iter(first)
    for _ in range(5):
        next(iterator)
    state = first.state_dict()
    assert state["delivered"] == 5  # not what the worker has fetched ahead
    second = _train_loader(handmade_root)
    second.load_state_dict(state)
    resumed = list(islice(second, 7))
    assert _digest(resumed) == whole[5:]
    assert _digest(list(islice(_train_loader(handmade_root, start_iteration=5), 7))) == _digest(
        resumed
    )


def test_state_of_another_stream_is_not_used(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {**_train_loader(handmade_root).state_dict(), "delivered": 9}
    other = _train_loader(handmade_root, seed=1)
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(state)
    assert "starts anew: seed 0 -> 1" in caplog.text
    assert other.delivered == 0


def _window_loader(root: Path, **options) -> TrainLoader:
    mapper = NuScenesMapper(training=True, image_aug=IMAGE, scene_aug=SceneAugmentation())
    options = {"num_workers": 0, "rank": 0, "world_size": 1, "window_length": 3, **options}
    return build_window_loader(_dataset(root), mapper, lanes_per_rank=2, **options)


def _flat_digest(batches: list[list[list[Sample]]]) -> list:
    """As `_digest`: one row per window."""
    return [_digest(batch) for batch in batches]


def test_windows_do_not_depend_on_workers(handmade_root: Path) -> None:
    loader = _window_loader(handmade_root)
    assert len(loader.dataset) == 9
    expected = _flat_digest(list(islice(loader, 7)))
    assert _flat_digest(list(islice(_window_loader(handmade_root, num_workers=2), 7))) == expected
    windows = [window for batch in expected for window in batch]
    assert {len(window) for window in windows} == {3}
    # Every frame has its own draws, also where a window repeats one.
    assert len({frame[2:] for window in windows for frame in window}) == 3 * len(windows)
    tokens = loader.dataset.records.tokens
    first_epoch = {window[-1][0] for window in windows[:10]}
    assert first_epoch == set(tokens)
    for window in windows:
        places = [tokens.index(token) for token, *_ in window]
        assert places == sorted(places) and not window[0][1]


def test_windows_resume_where_they_were(handmade_root: Path) -> None:
    whole = _flat_digest(list(islice(_window_loader(handmade_root), 9)))
    first = _window_loader(handmade_root, num_workers=1)
    assert _flat_digest(list(islice(first, 6))) == whole[:6]
    state = first.state_dict()
    assert state["delivered"] == 6
    second = _window_loader(handmade_root)
    second.load_state_dict(state)
    assert _flat_digest(list(islice(second, 3))) == whole[6:]


def test_state_of_the_other_mode_is_not_used(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {**_train_loader(handmade_root).state_dict(), "delivered": 9}
    other = _window_loader(handmade_root)
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(state)
    assert "starts anew" in caplog.text and "window_length None -> 3" in caplog.text
    assert other.delivered == 0


def test_broken_pictures_of_windows_are_counted(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    handmade_tables.write_tables(tables, tmp_path)
    handmade_tables.write_pictures(tables, tmp_path)
    (tmp_path / "samples/CAM_BACK/scene-0061-0.jpg").unlink()
    mapper = NuScenesMapper(training=True, image_aug=IMAGE, on_bad_image="count")
    loader = build_window_loader(
        _dataset(tmp_path), mapper, lanes_per_rank=2, window_length=3, num_workers=0
    )
    batches = list(islice(loader, 5))
    played = [frame.sample_token for batch in batches for window in batch for frame in window]
    assert loader.bad_images == played.count("scene-0061-0") >= 5


def test_evaluation_order_and_length(handmade_root: Path) -> None:
    mapper = NuScenesMapper(training=False, image_aug=IMAGE)
    tokens = []
    for rank in range(2):
        loader = build_test_loader(
            _dataset(handmade_root), mapper, num_workers=rank, rank=rank, world_size=2
        )
        batches = list(loader)
        assert len(loader) == len(batches)
        assert all(len(batch) == 1 for batch in batches)
        tokens += [batch[0].sample_token for batch in batches]
    assert tokens == loader.dataset.records.tokens


def test_evaluation_defaults_to_one_process(handmade_root: Path) -> None:
    mapper = NuScenesMapper(training=False, image_aug=IMAGE)
    loader = build_test_loader(_dataset(handmade_root, "mini_val"), mapper, num_workers=0)
    assert len(loader) == 4


def test_broken_pictures_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = handmade_tables.make_tables()
    handmade_tables.write_tables(tables, tmp_path)
    handmade_tables.write_pictures(tables, tmp_path)
    for frame in (0, 2):
        (tmp_path / f"samples/CAM_BACK/scene-0103-{frame}.jpg").unlink()
    mapper = NuScenesMapper(training=False, image_aug=IMAGE, on_bad_image="count")
    loader = build_test_loader(_dataset(tmp_path, "mini_val"), mapper, num_workers=1)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
    assert [batch[0].sample_token for batch in batches] == [f"scene-0103-{n}" for n in range(4)]
    assert loader.bad_images == 2
    assert "sample scene-0103-2: picture" in caplog.text and "(bad picture 2)" in caplog.text


def test_broken_picture_ends_the_run_by_default(tmp_path: Path) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    mapper = NuScenesMapper(training=False, image_aug=IMAGE)
    loader = build_test_loader(_dataset(tmp_path, "mini_val"), mapper, num_workers=1)
    # Without the traceback of the worker process.
    with pytest.raises(RuntimeError, match="^sample scene-0103-0: picture .* cannot be read.*$"):
        list(loader)


def test_training_needs_annotations(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    tables["sample_annotation"] = []
    handmade_tables.write_tables(tables, tmp_path)
    with pytest.raises(ValueError, match="no annotations to train on"):
        _train_loader(tmp_path)


def test_mappers_and_seeds_are_checked(handmade_root: Path) -> None:
    training = NuScenesMapper(training=True, image_aug=IMAGE)
    evaluation = NuScenesMapper(training=False, image_aug=IMAGE)
    with pytest.raises(ValueError, match="mapper with training=False"):
        build_test_loader(_dataset(handmade_root), training)
    with pytest.raises(ValueError, match="mapper with training=True"):
        build_train_loader(_dataset(handmade_root), evaluation, lanes_per_rank=1)
    with pytest.raises(ValueError, match="mapper with training=True"):
        build_window_loader(_dataset(handmade_root), evaluation, lanes_per_rank=1, window_length=2)
    with pytest.raises(ValueError, match="seed must be 0 or more, not -1"):
        _train_loader(handmade_root, seed=-1)


def test_a_batch_arrives_from_a_worker_as_it_was_made(handmade_root: Path) -> None:
    mapper = NuScenesMapper(
        training=True, image_aug=IMAGE, scene_aug=SceneAugmentation(), boxes2d=True
    )
    options = {"lanes_per_rank": 2, "window_length": 2, "rank": 0, "world_size": 1}
    here, there = (
        next(iter(build_window_loader(_dataset(handmade_root), mapper, num_workers=n, **options)))
        for n in (0, 1)
    )
    assert [len(window) for window in there] == [2, 2]
    for made, arrived in zip(here.samples(), there.samples(), strict=True):
        assert list(arrived.as_dict()) == list(made.as_dict())
        assert arrived.lidar_to_ego.matrix().tolist() == made.lidar_to_ego.matrix().tolist()
        for name in ("images", "lidar_to_image", "timestamp_s", "continues_stream", "gt_labels"):
            tensors = getattr(arrived, name), getattr(made, name)
            assert tensors[0].dtype == tensors[1].dtype
            assert torch.equal(*tensors)
        for found, expected in zip(arrived.boxes2d, made.boxes2d, strict=True):
            assert torch.equal(found.corners, expected.corners)
            assert torch.equal(found.labels, expected.labels)


def test_a_batch_travels_as_few_tensors() -> None:
    pictures = torch.zeros(6, 3, 80, 200, dtype=torch.uint8)
    sample = replace(Sample.of(make_sample(0)), images=pictures)
    _, (entries, packed, kinds) = Batch([sample, sample]).__reduce__()
    alone: list[torch.Tensor] = []
    map_tensors(entries, lambda tensor: alone.append(tensor) or tensor)
    assert [tensor.shape for tensor in alone] == 2 * [sample.images.shape]
    assert len(kinds) == 2 * 33 and packed.numel() < 1 << 16


def test_pinning_takes_the_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    samples = [Sample.of(make_sample(time)) for time in range(3)]
    pinned = Batch([samples[0], samples[1:]]).pin_memory()
    for time, sample in enumerate(pinned.samples()):
        made = Sample.of(make_sample(time))
        assert torch.equal(sample.images, made.images + 1)
        assert torch.equal(sample.gt_boxes, made.gt_boxes)


def test_evaluation_can_be_repeated_by_the_same_workers(handmade_root: Path) -> None:
    mapper = NuScenesMapper(training=False, image_aug=IMAGE)
    loader = build_test_loader(_dataset(handmade_root), mapper, num_workers=1)
    next(iter(loader))  # an evaluation that is cut off
    first, second = _digest(list(loader)), _digest(list(loader))
    assert first == second and len(first) == len(loader)


def test_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, processes, expected in ((1, 1, 0), (2, 1, 1), (8, 2, 3), (4, 8, 0), (64, 1, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setattr(comm, "get_local_size", lambda processes=processes: processes)
        assert default_workers() == expected
