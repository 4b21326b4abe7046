"""How many pictures a second the training loader gives."""

from __future__ import annotations

import time
from collections.abc import Sequence

from streampetr_vit.benchmark.result import Result, Row
from streampetr_vit.benchmark.session import Session
from streampetr_vit.engine.config import call


def measure_loading(
    session: Session, *, workers: Sequence[int] = (0, 1, 2), frames: int = 60
) -> Result:
    """Times the training loader of a configuration on its data set.

    Args:
        session: whose dataloader.train.
        workers: numbers of loading processes; 0 loads in this one.
        frames: that are timed for each.
    """
    height, width = session.image_size
    result = session.result("data", input=f"{width}x{height}", frames=frames)
    result.tables["loader"] = [_loader_row(session, count, frames) for count in workers]
    if session.cfg.dataloader.train.mapper.get("cache_images"):
        result.notes.append("mapper.cache_images is on: pictures seen before come from memory.")
    return result


def _loader_row(session: Session, workers: int, frames: int) -> Row:
    settings = session.cfg.dataloader.train
    batches = iter(call(settings, num_workers=workers, rank=0, world_size=1))
    for _ in range(2 * workers + 1):  # until the queues that workers fill in advance are steady
        next(batches)
    images = samples = 0
    start, cpu_start = time.perf_counter(), time.process_time()
    while samples < frames:
        for sample in next(batches).samples():
            images, samples = images + len(sample.images), samples + 1
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "workers": workers,
        "images_per_s": images / seconds,
        "frames_per_s": samples / seconds,
        "ms_per_frame": 1e3 * seconds / samples,
        "cpu_ms_per_frame": 1e3 * cpu_seconds / samples,  # of this process alone
    }
