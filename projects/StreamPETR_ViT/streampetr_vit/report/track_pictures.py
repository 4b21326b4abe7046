"""True and predicted tracks from above, in the colours of the true objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from math import gcd

import numpy as np

from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.report.frames import Results, balanced_threshold
from streampetr_vit.report.page import PictureGroup
from streampetr_vit.report.track_boxes import (
    TrackBoxes,
    Window,
    chosen_windows,
    predicted_boxes,
    true_boxes,
)
from streampetr_vit.report.track_matches import MATCH_DISTANCE_M, Pairs, matched, partners, switches
from streampetr_vit.tracking.classes import OFFICIAL_NAMES, tracked_kinds
from streampetr_vit.visualization.colors import Color
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.trails_from_above import (
    EgoPath,
    Trail,
    TrailPanel,
    draw_trail_panels,
)

FALSE_COLOR: Color = (112, 122, 136)
OTHER_ID_COLOR: Color = (255, 40, 40)
# Hues of the objects leave out red. What is close in hue differs in saturation and value.
_FIRST_HUE, _LAST_HUE = 0.08, 0.9
_SHADES = ((0.85, 1.0), (0.35, 1.0), (0.7, 0.75))
_HUE_STRIDE = 0.38  # of all hues, from one object to the next: those seen together differ most
_LABEL_LENGTH = 6  # of the ids of strangers, which may be long


def draw_tracks(
    records: FrameRecords, results: Results, tracker: str, range_m: float, count: int = 2
) -> PictureGroup | None:
    """Draws the tracks of some seconds of drives.

    Args:
        records: of the evaluated data set.
        results: sample token -> boxes with ids, of a results file.
        tracker: its name.
        range_m: how far from the lidar tracks are shown.
        count: how many pictures at most.

    Returns:
        None where no scene has a true track.

    Raises:
        InputError: a box of another form.
    """
    # Results have official classes only.
    all_kinds = tracked_kinds(records.spec)
    kinds = {name: kind for name, kind in all_kinds.items() if kind in OFFICIAL_NAMES}
    windows = chosen_windows(records, kinds, range_m, count)
    if not windows:
        return None
    true = [true_boxes(window.frames, kinds, range_m) for window in windows]
    found = [predicted_boxes(window.frames, results, range_m) for window in windows]
    threshold = balanced_threshold(
        [score for boxes in found for score in boxes.scores.tolist()], sum(map(len, true))
    )
    pictures = {}
    for window, ours, theirs in zip(windows, true, found, strict=True):
        caption, image = _picture(window, ours, theirs[theirs.scores >= threshold])
        # Scenes may share a name: a picture must not take the place of another.
        is_taken = caption in pictures
        pictures[f"{caption} ({window.frames[0].scene_token})" if is_taken else caption] = image
    return PictureGroup("Tracks from above", _explanation(tracker, threshold), pictures)


def _explanation(tracker: str, threshold: float) -> str:
    scores = f"with a mean score of at least {threshold:.2f}" if threshold > 0 else "of any score"
    return (
        "The same seconds twice: the true ways of objects, and the tracks of "
        f'"{tracker}" {scores}. Dots are where the objects are at the end, numbers are ids; '
        "white is the own car and its way. The same colour is the same object. A ring marks where "
        "an object got another id. Red: an id of an object that has another one for longer. Grey: "
        f"no true object of the class within {MATCH_DISTANCE_M:g} m. Dashed: not seen in between."
    )


def _picture(window: Window, true: TrackBoxes, found: TrackBoxes) -> tuple[str, Image]:
    """A caption, and the panels of true and of predicted tracks."""
    pairs = matched(true, found)
    rings = switches(true, found, pairs)
    colors = _object_colors(true.names())
    numbers = {name: str(number) for number, name in enumerate(true.names(), start=1)}
    of_found = _predicted_colors(true, found, pairs, colors)
    labels = {name: name[-_LABEL_LENGTH:] for name in found.names() if name in of_found}
    panels = (
        TrailPanel("TRUE TRACKS", _trails(true, colors, numbers), np.zeros((0, 2))),
        TrailPanel("PREDICTED TRACKS", _trails(found, of_found, labels), found.places_m[rings]),
    )
    return _caption(window, true, found, pairs), draw_trail_panels(panels, _ego(window.frames))


def _object_colors(names: Sequence[str]) -> dict[str, Color]:
    """A colour for each object, as far from each other as so many can be."""
    count = len(names)
    # A stride without a common divisor meets each number once.
    stride = next(
        k for k in range(max(1, round(_HUE_STRIDE * count)), count + 2) if gcd(k, count) == 1
    )
    places = [number * stride % count for number in range(count)]
    return {name: _color(place, count) for name, place in zip(names, places, strict=True)}


def _color(place: int, count: int) -> Color:
    hue = _FIRST_HUE + (_LAST_HUE - _FIRST_HUE) * place / count
    red, green, blue = hsv_to_rgb(hue, *_SHADES[place % len(_SHADES)])
    return round(255 * red), round(255 * green), round(255 * blue)


def _predicted_colors(
    true: TrackBoxes, found: TrackBoxes, pairs: Pairs, colors: Mapping[str, Color]
) -> dict[str, Color]:
    """Colours of the ids that are at an object."""
    partner = partners(true, found, pairs)
    names = {str(found.ids[theirs]) for _, theirs in pairs}
    return {n: colors[partner[n]] if n in partner else OTHER_ID_COLOR for n in names}


def _trails(
    boxes: TrackBoxes, colors: Mapping[str, Color], labels: Mapping[str, str]
) -> list[Trail]:
    trails = []
    for name in boxes.names():
        part = boxes[boxes.ids == name]
        color, thickness = colors.get(name, FALSE_COLOR), 2 if name in colors else 1
        trails.append(Trail(part.places_m, part.frames, color, labels.get(name, ""), thickness))
    # The grey ones are drawn first, below the others.
    return sorted(trails, key=lambda trail: trail.thickness, reverse=True)


def _ego(frames: Sequence[FrameRecord]) -> EgoPath:
    poses = [record.ego_to_global for record in frames]
    headings = np.array([pose.rotation().apply([1.0, 0.0, 0.0])[:2] for pose in poses])
    lengths = np.hypot(headings[:, 0], headings[:, 1])
    places = np.array([pose.translation_m[:2] for pose in poses])
    return EgoPath(places, headings / lengths[:, None])


def _caption(window: Window, true: TrackBoxes, found: TrackBoxes, pairs: Pairs) -> str:
    at_an_object = {str(found.ids[theirs]) for _, theirs in pairs}
    followed = {str(true.ids[ours]) for ours, _ in pairs}
    false = len(found.names()) - len(at_an_object)
    count = len(switches(true, found, pairs))
    return (
        f"{window.title()}: {len(followed)} of {len(true.names())} true "
        f"objects have an id; {count} id switch{'es' * (count != 1)}; {false} track"
        f"{'s' * (false != 1)} at no object"
    )
