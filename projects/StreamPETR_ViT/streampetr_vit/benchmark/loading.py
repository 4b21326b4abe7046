"""How many pictures a second the training loader gives, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.config import instantiate

from streampetr_vit.benchmark.report import Report, Row
from streampetr_vit.benchmark.session import Session, require_positive
from streampetr_vit.benchmark.timing import percentile
from streampetr_vit.data.annotations import boxes_of_record, filter_by_range
from streampetr_vit.data.boxes2d import transform_boxes2d
from streampetr_vit.data.build import open_dataset
from streampetr_vit.data.image_io import read_image
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.projected_boxes import boxes2d_of_record
from streampetr_vit.engine.config import call

_PARTS = ("read and decode", "resize and crop", "annotations", "whole sample")


def measure_loading(
    session: Session, *, workers: Sequence[int] = (0, 1, 2), frames: int = 60
) -> Report:
    """Times the training loader of a configuration on its data set.

    Args:
        session: whose dataloader.train.
        workers: numbers of loading processes; 0 loads in this one.
        frames: that are timed for each.

    Raises:
        InputError: no frames.
    """
    require_positive("--frames", frames)
    mapper = session.cfg.dataloader.train.mapper
    height, width = mapper.image_aug.final_size
    report = session.report("data", input=f"{width}x{height}", frames=frames)
    report.tables["loader"] = [_loader_row(session, count, frames) for count in workers]
    report.tables["parts, one process"] = _part_rows(session, frames)
    if mapper.get("cache_images"):
        report.notes.append(
            "mapper.cache_images is on: pictures seen before come from memory, and the loader is "
            "faster than its parts."
        )
    return report


def _loader_row(session: Session, workers: int, frames: int) -> Row:
    """The rate once the queues that the workers fill in advance are steady."""
    settings = session.cfg.dataloader.train
    loader = call(settings, num_workers=workers, rank=0, world_size=1)
    batches = iter(loader)
    for _ in range(2 * workers + 1):
        next(batches)
    images = samples = 0
    start = time.perf_counter()
    while samples < frames:
        for sample in _samples(next(batches)):
            images, samples = images + len(sample["images"]), samples + 1
    seconds = time.perf_counter() - start
    return {
        "workers": workers,
        "images_per_s": images / seconds,
        "frames_per_s": samples / seconds,
        "ms_per_frame": 1e3 * seconds / samples,
    }


def _samples(batch: list[Any]) -> list[dict[str, Any]]:
    """Of a batch of samples, or of windows of samples."""
    return [s for entry in batch for s in (entry if isinstance(entry, list) else [entry])]


def _part_rows(session: Session, frames: int) -> list[Row]:
    """Medians over frames, in this process, with OpenCV on one thread as in a worker."""
    settings = session.cfg.dataloader.train
    records, mapper = open_dataset(settings.dataset), instantiate(settings.mapper)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        runs = [
            _parts_of_frame(mapper, records[index % len(records)], index) for index in range(frames)
        ]
    finally:
        cv2.setNumThreads(threads)
    cameras = len(records[0].camera_paths)
    medians = [percentile(seconds, 50) for seconds in zip(*runs, strict=True)]
    return [
        {"part": part, "ms_per_frame": 1e3 * median, "ms_per_image": 1e3 * median / cameras}
        for part, median in zip(_PARTS, medians, strict=True)
    ]


def _parts_of_frame(mapper: NuScenesMapper, record: Any, seed: int) -> list[float]:
    """Seconds of each of `_PARTS`."""
    size = tuple(record.image_sizes[0].tolist())
    draw = mapper.image_aug.draw(size, np.random.default_rng(seed))
    marks = [time.perf_counter()]
    pictures = [read_image(record.root / path, size) for path in record.camera_paths]
    marks.append(time.perf_counter())
    for picture in pictures:
        # Into memory in the order that the network reads, as the mapper's copy does.
        np.ascontiguousarray(draw.apply(picture)[:, :, ::-1].transpose(2, 0, 1))
    marks.append(time.perf_counter())
    boxes, labels = boxes_of_record(record, mapper.class_names, mapper.use_valid_flag)
    filter_by_range(boxes, labels, mapper.point_cloud_range)
    if mapper.boxes2d:
        for objects in boxes2d_of_record(record, mapper.class_names_2d):
            transform_boxes2d(objects, draw)
    marks.append(time.perf_counter())
    mapper(record, rng=np.random.default_rng(seed))
    marks.append(time.perf_counter())
    return [end - begin for begin, end in zip(marks, marks[1:], strict=False)]
