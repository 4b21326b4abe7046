"""Joins the tables of scenes, samples and annotations into arrays.

Only what a detector needs is kept. Rows are the samples in the order of the frames (scenes by their
first timestamp, then time).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampetr_vit.data.nuscenes.tables import (
    Rows,
    TableError,
    TableFolder,
    index_by_token,
    lookup,
)
from streampetr_vit.structures.sample_checks import LONGEST_GAP_S
from streampetr_vit.texts import shown

# Between them lies the usual time from key frame to key frame; outside, the unit is another one.
_SHORTEST_INTERVAL_US, _LONGEST_INTERVAL_US = 2_000, LONGEST_GAP_S * 1_000_000
_LONGEST_SIDE_M = 1000.0


@dataclass(frozen=True)
class Samples:
    """Samples in frame order. S samples, C scenes."""

    tokens: list[str]  # S
    timestamp_us: np.ndarray  # (S,) int64
    scene_of_frame: np.ndarray  # (S,) int32, row of the scene
    scene_tokens: list[str]  # C, in the order of the frames
    scene_names: list[str]  # C
    scene_offsets: np.ndarray  # (C + 1,) int64, first frame of each scene and the total


@dataclass(frozen=True)
class Annotations:
    """Boxes in table order. A annotations; everything in the global frame."""

    frame: np.ndarray  # (A,) int64, row of the sample
    center: np.ndarray  # (A, 3) float64
    size_wlh: np.ndarray  # (A, 3) float64
    rotation: np.ndarray  # (A, 4) float64
    previous: np.ndarray  # (A,) int64, row of the same object's neighbour in time, or -1
    following: np.ndarray  # (A,) int64, likewise
    category: np.ndarray  # (A,) int32, index into `category_names`
    category_names: list[str]  # of the table
    instance: np.ndarray  # (A,) int32
    num_lidar_pts: np.ndarray  # (A,) int32
    num_radar_pts: np.ndarray  # (A,) int32

    def __len__(self) -> int:
        return len(self.frame)


def read_samples(tables: TableFolder) -> Samples:
    """Reads `scene` and `sample`, orders the samples, and checks their times.

    Raises:
        TableError: if times do not rise along a scene, or are no microseconds.
    """
    scenes, samples = tables.rows("scene"), tables.rows("sample")
    scene_tokens, scene_names = scenes.texts("token"), scenes.texts("name")
    tokens, times = samples.texts("token"), samples.microseconds("timestamp")
    scene = samples.references("scene_token", scenes.index(), "scene")
    _check_unit(samples, times, scene)
    _check_chain(samples, times, scene)

    # The scenes by their first sample, whatever their order in the table.
    first_time = np.full(len(scenes), np.iinfo(np.int64).max)
    np.minimum.at(first_time, scene, times)
    scene_order = np.lexsort((np.arange(len(scenes)), first_time))
    scene_order = scene_order[np.isin(scene_order, scene)]  # scenes without samples are dropped
    rank = np.full(len(scenes), -1)
    rank[scene_order] = np.arange(len(scene_order))
    # By scene before time: recordings may overlap, and the frames of a scene must stay adjacent.
    order = np.lexsort((times, rank[scene]))
    scene_of_frame, times = rank[scene][order], times[order]  # both (S,) from here on
    same_time = (np.diff(times) <= 0) & (np.diff(scene_of_frame) == 0)
    if same_time.any():
        token = tokens[order[int(same_time.argmax()) + 1]]
        raise TableError(
            f"{samples.path}: sample {token!r} has the timestamp of another of its scene"
        )
    gap = (np.diff(times) > _LONGEST_INTERVAL_US) & (np.diff(scene_of_frame) == 0)
    if gap.any():  # a stream of the detector would refuse it hours later
        before, after = (tokens[row] for row in order[int(gap.argmax()) :][:2])
        raise TableError(
            f"{samples.path}: samples {before!r} and {after!r} of one scene are more than "
            f"{LONGEST_GAP_S} s apart; begin another scene after the pause"
        )
    return Samples(
        tokens=[tokens[row] for row in order],
        timestamp_us=times,
        scene_of_frame=scene_of_frame.astype(np.int32),
        scene_tokens=[scene_tokens[row] for row in scene_order],
        scene_names=[scene_names[row] for row in scene_order],
        scene_offsets=np.searchsorted(scene_of_frame, np.arange(len(scene_order) + 1)),
    )


def _check_unit(samples: Rows, times: np.ndarray, scene: np.ndarray) -> None:
    """Times that are not in microseconds show by the time between neighbours."""
    order = np.lexsort((times, scene))
    intervals = np.diff(times[order])[np.diff(scene[order]) == 0]
    if len(intervals) == 0:  # single frames
        return
    median = float(np.median(intervals))
    if not _SHORTEST_INTERVAL_US <= median <= _LONGEST_INTERVAL_US:
        usual = 500_000  # of nuScenes
        factor = 10.0 ** (3 * round(math.log10(usual / max(median, 0.5)) / 3))  # 1e6, 1e3, 1e-3
        raise TableError(
            f"{samples.path}: field 'timestamp' of record {shown(samples[0]['token'])} is "
            f"{times[0]}, and the samples of a scene are {median:g} apart (median): these are no "
            f"microseconds (nuScenes has {usual} from key frame to key frame). Multiply all times "
            f"of the tables by {factor:g}"
        )


def _check_chain(samples: Rows, times: np.ndarray, scene: np.ndarray) -> None:
    """The chain of `next` tokens must go forward in time, within a scene."""
    following = samples.column("next")
    here = np.flatnonzero([bool(token) for token in following])  # all but the ends of scenes
    there = samples.where(following).references("next", samples.index(), "sample")
    strays = scene[there] != scene[here]
    if strays.any():
        row = samples[int(here[int(strays.argmax())])]
        raise TableError(
            f"{samples.path}: field 'next' of record {shown(row['token'])} is "
            f'{shown(row["next"])}, a sample of another scene; a scene ends with ""'
        )
    backwards = times[there] <= times[here]
    if backwards.any():
        worst = int(backwards.argmax())
        a, b = int(here[worst]), int(there[worst])
        raise TableError(
            f"{samples.path}: timestamps out of order: sample {samples[a]['token']!r} at {times[a]}"
            f" us is followed by {samples[b]['token']!r} at {times[b]} us; `next` must lead to a "
            "later sample. Correct the timestamps, which are microseconds, or the chain"
        )


def read_annotations(tables: TableFolder, samples: Samples) -> Annotations:
    """Reads `category`, `instance` and `sample_annotation`; empty for a set without ground truth.

    Raises:
        FileNotFoundError: if the annotations are missing and the version is not a test set.
    """
    path = tables.path("sample_annotation")
    frame_of = {token: row for row, token in enumerate(samples.tokens)}
    if path.is_file() or not tables.folder.name.endswith("test"):
        categories, instances = tables.rows("category"), tables.rows("instance")
        pieces = tables.pieces("sample_annotation")
    else:
        categories = instances = Rows([], path)
        pieces = iter([categories])
    instance_of = instances.index()
    # (instances,) int32
    category = instances.references("category_token", categories.index(), "category")
    category = category.astype(np.int32)
    parts: list[dict[str, np.ndarray]] = []
    # A box may name one of another piece: these are looked up when all are read.
    links: dict[str, list[str]] = {"token": [], "prev": [], "next": []}
    for piece in pieces:
        instance = piece.references("instance_token", instance_of, "instance")
        part = {
            "frame": piece.references("sample_token", frame_of, "sample"),
            "center": piece.positions("translation"),
            "size_wlh": piece.numbers("size", (3,)),
            "rotation": piece.quaternions("rotation"),
            "category": category[instance],
            "instance": instance.astype(np.int32),
            "num_lidar_pts": piece.counts("num_lidar_pts"),
            "num_radar_pts": piece.counts("num_radar_pts"),
        }
        for field, values in links.items():
            values.extend(piece.column(field))
        wrong = ((part["size_wlh"] <= 0) | (part["size_wlh"] > _LONGEST_SIDE_M)).any(axis=1)
        rule = f"(w, l, h) must be positive metres, at most {_LONGEST_SIDE_M:g}"
        piece.refuse(wrong, "size", rule)
        parts.append(part)
    index = index_by_token(links["token"], path) | {"": -1}  # "" at the ends of a track
    annotations = Annotations(
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        previous=lookup(index, links["prev"], "prev", path, "sample_annotation"),
        following=lookup(index, links["next"], "next", path, "sample_annotation"),
        category_names=categories.texts("name"),
    )
    _check_tracks(annotations, links, samples.timestamp_us, path)
    return annotations


def _check_tracks(
    annotations: Annotations, links: dict[str, list[str]], times_us: np.ndarray, path: Path
) -> None:
    """A box's neighbours are the same object, earlier and later: velocities are made of them."""
    time = times_us[annotations.frame]
    for field, neighbour, sign in (
        ("prev", annotations.previous, -1),
        ("next", annotations.following, 1),
    ):
        here = np.flatnonzero(neighbour >= 0)
        there = neighbour[here]
        other = annotations.instance[there] != annotations.instance[here]
        wrong = other | (sign * (time[there] - time[here]) <= 0)
        if wrong.any():
            worst = int(wrong.argmax())
            row, direction = int(here[worst]), "earlier" if sign < 0 else "later"
            raise TableError(
                f"{path}: field {field!r} of record {shown(links['token'][row])} is "
                f"{shown(links[field][row])}, which is "
                f"{'of another instance' if other[worst] else f'not {direction}'}; it must be the "
                f'{direction} box of the same instance, or ""'
            )
