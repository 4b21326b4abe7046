"""What a data set holds, and whether its pictures are there: for people, before a long run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from streampetr_vit.data.image_io import BadImageError, read_image
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.texts import name_list

# Two key frames further apart than this are counted as a gap (nuScenes has 0.5 s between them).
GAP_S = 0.75


@dataclass(frozen=True)
class Summary:
    """Counts of a data set."""

    scenes: int
    frames: int
    frames_per_scene: tuple[int, int]  # (shortest, longest)
    scene_names: list[str]  # in the order of the frames
    # (smallest, median, largest) time between neighbours of a scene; NaN if none
    interval_s: tuple[float, float, float]
    gaps: int  # intervals longer than `GAP_S`
    boxes: dict[str, int]  # by class name, with "other" for categories of no class
    image_sizes: list[tuple[int, int]]  # different (width, height) of the pictures

    def __str__(self) -> str:
        total = sum(self.boxes.values())
        shortest, longest = self.frames_per_scene
        least, median, most = self.interval_s
        sizes = ", ".join(f"{width}x{height}" for width, height in self.image_sizes)
        lines = [
            f"scenes   {self.scenes}, of {shortest} to {longest} key frames: "
            f"{name_list(self.scene_names, 10)}",
            f"frames   {self.frames}",
            f"interval {median:.3f} s ({least:.3f} to {most:.3f}), {self.gaps} above {GAP_S} s",
            f"pictures {sizes}",
            f"boxes    {total}" + ("" if total else " (no annotations)"),
        ]
        lines += [f"  {name:22s} {count}" for name, count in self.boxes.items() if total]
        return "\n".join(lines)


def summarise(records: FrameRecords) -> Summary:
    """Counts scenes, frames, times and boxes.

    Raises:
        InputError: if there is no frame.
    """
    if len(records) == 0:
        raise InputError(f"{records.root / records.version}: the chosen scenes have no frames")
    times = np.split(records.timestamps_us * 1e-6, np.cumsum(records.scene_lengths)[:-1])
    intervals = np.concatenate([np.diff(of_scene) for of_scene in times])  # none between scenes
    intervals = intervals if len(intervals) else np.array([np.nan])  # single frames
    counts = records.boxes_per_class().tolist()
    sizes = {tuple(size) for size in records.image_sizes.reshape(-1, 2).tolist()}  # of all cameras
    return Summary(
        scenes=len(records.scene_lengths),
        frames=len(records),
        scene_names=records.scene_names,
        frames_per_scene=(min(records.scene_lengths), max(records.scene_lengths)),
        interval_s=(intervals.min().item(), np.median(intervals).item(), intervals.max().item()),
        gaps=int((intervals > GAP_S).sum()),
        # The last count is of boxes of no class.
        boxes=dict(zip((*records.spec.class_names, "other"), counts, strict=True)),
        image_sizes=sorted(sizes),
    )


def evenly_spaced(count: int, total: int) -> list[int]:
    """At most `count` different indices of range(total), from the first to the last."""
    # Rounding can meet a place twice where there are few.
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def broken_pictures(
    records: FrameRecords,
    indices: Iterable[int],
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[str]:
    """Decodes the pictures of some frames; one text for each that is missing or broken.

    Args:
        records: the data set.
        indices: which frames.
        progress: wraps the indices to show progress, see `progress.progress`.
    """
    problems = []
    for index in progress(indices):
        record = records[index]
        for camera, (width, height) in enumerate(record.image_sizes.tolist()):
            try:
                read_image(record.picture(camera), (width, height))
            except BadImageError as error:
                problems.append(f"sample {record.token}: {error}")
    return problems
