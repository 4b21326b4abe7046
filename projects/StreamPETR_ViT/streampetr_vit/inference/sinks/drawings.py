"""Objects drawn on the pictures and from above: a video of each scene, or a picture of each frame.

A frame is drawn as `visualization.draw_moment` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sinks.straight_moments import StraightMoments
from streampetr_vit.structures import Moment, Objects
from streampetr_vit.visualization import draw_moment, save_picture, video_writer
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.video import HIGHEST_RATE, VideoWriter


class Drawer:
    """Draws frames.

    Args:
        score_threshold: weaker objects are left out.
        range_m: half the width of the view from above.
        panel_width: of the widest camera picture, pixels.
    """

    def __init__(
        self, score_threshold: float = 0.25, range_m: float = 51.2, panel_width: int = 640
    ) -> None:
        self._options = score_threshold, range_m, panel_width
        self._straight = StraightMoments()

    def __call__(self, moment: Moment, objects: Objects) -> Image:
        """(H, W, 3) uint8 RGB."""
        return draw_moment(self._straight(moment), objects, *self._options)


class Pictures:
    """A PNG file for each frame: pictures/SCENE/000000.png.

    Args:
        folder: of the scenes' folders.
        drawer: of the frames.
    """

    can_append = True  # each frame is a file of its own, which is written again

    def __init__(self, folder: Path, drawer: Drawer) -> None:
        self._folder, self._drawer = folder, drawer
        self._scene, self._frame = "", 0

    def open_scene(self, scene: Scene, done: int) -> None:
        """See `Sink`."""
        self._scene, self._frame = scene.label, done

    def write(self, moment: Moment, objects: Objects) -> None:
        """See `Sink`."""
        path = self._folder / self._scene / f"{self._frame:06d}.png"
        save_picture(path, self._drawer(moment, objects))
        self._frame += 1

    def save(self) -> None:
        """See `Sink`; each picture is on the disk when it was written."""

    def close_scene(self) -> None:
        """See `Sink`."""

    def abandon_scene(self) -> None:
        """See `Sink`."""

    def finish(self, scenes: Sequence[Scene]) -> None:
        """See `Sink`."""

    def outputs(self) -> list[Path]:
        """See `Sink`."""
        return [self._folder]


class Videos:
    """A video of each scene, at the rate of its frames: videos/SCENE.mp4.

    Args:
        folder: of the videos.
        drawer: of the frames.
    """

    can_append = False

    def __init__(self, folder: Path, drawer: Drawer) -> None:
        self._folder, self._drawer = folder, drawer
        self._stack = ExitStack()
        self._video: VideoWriter | None = None

    def open_scene(self, scene: Scene, done: int) -> None:
        """See `Sink`."""
        path = self._folder / f"{scene.label}.mp4"
        rate = min(scene.frames_per_second, HIGHEST_RATE)
        self._video = self._stack.enter_context(video_writer(path, rate))

    def write(self, moment: Moment, objects: Objects) -> None:
        """See `Sink`."""
        assert self._video is not None
        self._video.write(self._drawer(moment, objects))

    def save(self) -> None:
        """See `Sink`; a video cannot be gone on with."""

    def close_scene(self) -> None:
        """See `Sink`."""
        self._stack.close()

    def abandon_scene(self) -> None:
        """See `Sink`."""
        with suppress(_AbandonedError), self._stack.pop_all():
            raise _AbandonedError

    def finish(self, scenes: Sequence[Scene]) -> None:
        """See `Sink`."""

    def outputs(self) -> list[Path]:
        """See `Sink`."""
        return [self._folder]


class _AbandonedError(Exception):
    """Ends the block of a video, so that no file of it is left."""
