"""Objects drawn on the pictures and from above: videos, pictures, recordings for a viewer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.undistorted_moments import UndistortedMoments
from streampetr_vit.structures import Moment, Objects
from streampetr_vit.visualization import draw_moment, save_picture, video_writer
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.rerun_recording import rerun_recording
from streampetr_vit.visualization.video import HIGHEST_RATE

Take = Callable[[Moment, Objects], object]  # takes the next frame
Opener = Callable[[Path, Scene], AbstractContextManager[Take]]


class Drawer:
    """Draws frames as `visualization.draw_moment` does, with straight pictures.

    Args:
        score_threshold: weaker objects are left out.
    """

    def __init__(self, score_threshold: float = 0.25) -> None:
        self._score_threshold = score_threshold
        self._undistorted = UndistortedMoments()

    def __call__(self, moment: Moment, objects: Objects) -> Image:
        """(H, W, 3) uint8 RGB."""
        return draw_moment(self._undistorted(moment), objects, self._score_threshold)


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


class SceneFiles:
    """A file for each scene, which cannot be gone on with: its maker needs all frames.

    Args:
        folder: of the files.
        ending: of their names.
        opened: opens a file of a scene, and gives what takes its frames.
    """

    can_append = False

    def __init__(self, folder: Path, ending: str, opened: Opener) -> None:
        self._folder, self._ending, self._opened = folder, ending, opened
        self._stack = ExitStack()
        self._take: Take | None = None

    def open_scene(self, scene: Scene, done: int) -> None:
        """See `Sink`."""
        path = self._folder / f"{scene.label}{self._ending}"
        self._take = self._stack.enter_context(self._opened(path, scene))

    def write(self, moment: Moment, objects: Objects) -> None:
        """See `Sink`."""
        assert self._take is not None
        self._take(moment, objects)

    def save(self) -> None:
        """See `Sink`; nothing of it is kept."""

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
    """Ends the block of a file, so that none is left."""


def videos(folder: Path, drawer: Drawer) -> SceneFiles:
    """A video of each scene, at the rate of its frames: videos/SCENE.mp4."""

    @contextmanager
    def opened(path: Path, scene: Scene) -> Iterator[Take]:
        with video_writer(path, min(scene.frames_per_second, HIGHEST_RATE)) as video:
            yield lambda moment, objects: video.write(drawer(moment, objects))

    return SceneFiles(folder, ".mp4", opened)


def recordings(folder: Path, score_threshold: float = 0.25) -> SceneFiles:
    """A recording of each scene for rerun's viewer: rerun/SCENE.rrd."""
    straight = UndistortedMoments()

    @contextmanager
    def opened(path: Path, scene: Scene) -> Iterator[Take]:
        with rerun_recording(path, score_threshold=score_threshold) as recording:
            yield lambda moment, objects: recording.write(straight(moment), objects)

    return SceneFiles(folder, ".rrd", opened)
