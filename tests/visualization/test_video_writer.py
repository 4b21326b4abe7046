"""Videos are complete, of all pictures, in their colours, and such as browsers play."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.logs import forget_logged
from streampetr_vit.visualization.video import video_writer

COLORS = [(230, 40, 40), (40, 230, 40), (40, 40, 230), (19, 24, 32), (255, 159, 28)]
HEIGHT, WIDTH = 41, 101  # odd, which no encoder takes
NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def picture(turn: int = 0) -> np.ndarray:
    """Stripes of 20 pixels in the colours above; `turn` says which one is first."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for stripe in range(len(COLORS)):
        image[:, 20 * stripe :] = COLORS[(stripe + turn) % len(COLORS)]
    return image


def write(path: Path, frames: int = 7) -> None:
    with video_writer(path, 12.5) as video:
        for turn in range(frames):
            video.write(picture(turn))
        assert not path.exists()  # before it is complete
        assert video.frames == frames


def decoded(path: Path) -> list[np.ndarray]:
    """All pictures of a video, RGB."""
    video, pictures = cv2.VideoCapture(str(path)), []
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    while (read := video.read())[0]:
        pictures.append(read[1][:, :, ::-1])
    return pictures


def check_pictures(path: Path, frames: int, tolerance: int) -> None:
    pictures = decoded(path)
    assert [image.shape for image in pictures] == [(HEIGHT + 1, WIDTH + 1, 3)] * frames
    for turn, image in enumerate(pictures):
        wanted = picture(turn)
        np.testing.assert_allclose(
            image[20, 10:WIDTH:20].astype(int), wanted[20, 10:WIDTH:20], atol=tolerance
        )
        # The last row and column are there, and what was added to them is like them.
        assert np.abs(image[20, -2:].astype(int) - wanted[20, -1]).max() < 4 * tolerance


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # an import raises
    forget_logged()


def test_h264_of_all_pictures_in_their_colours(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "folder" / "video.mp4"
    write(path)
    check_pictures(path, 7, tolerance=8)
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        codec = stream.codec_context
        assert codec.name == "h264" and codec.pix_fmt == "yuv420p"
        # Tags of the matrix by which OpenCV, which does not look at them, read the same colours.
        assert (codec.colorspace, codec.color_range) == (6, 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a player can start at once
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("without_av")
def test_without_av_opencv_writes_it_and_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write(tmp_path / "a.mp4")
        write(tmp_path / "b.mp4")
    check_pictures(tmp_path / "b.mp4", 7, tolerance=16)
    assert [record.message.count("pip install av") for record in caplog.records] == [1]


@pytest.mark.usefixtures("without_av")
def test_without_any_encoder_an_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2.VideoWriter, "fourcc", lambda *letters: -1)
    with pytest.raises(OutputError, match="cannot encode the video .*/v.mp4: `pip install av`"):
        write(tmp_path / "v.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["with_av", "without_av"])
def test_another_size_is_refused_and_leaves_no_file(tmp_path: Path, backend: str, request) -> None:
    if backend == "without_av":
        request.getfixturevalue(backend)
    wanted = r"picture 1 of the video .*v.mp4 is 90x41 pixels, those before it are 101x41; write"
    with pytest.raises(InputError, match=wanted), video_writer(tmp_path / "v.mp4", 2) as video:
        video.write(picture())
        video.write(picture()[:, :90])
    assert not list(tmp_path.iterdir())


def test_an_old_video_stays_where_a_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_text("old")
    with pytest.raises(RuntimeError), video_writer(path, 2) as video:
        video.write(picture())
        raise RuntimeError("stopped")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("v.avi", 2.0, "end its name with .mp4"),
        ("v.mp4", 0.0, "0.0 frames per second; give a number above 0"),
        ("v.mp4", float("nan"), "nan frames per second"),
        ("v.mp4", 1e9, "1000000000.0 frames per second"),
        ("v.mp4", 1e-5, "got no picture; write at least one"),
    ],
)
def test_what_no_video_can_be_made_of(tmp_path: Path, name: str, rate: float, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)), video_writer(tmp_path / name, rate):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [1e-5, 29.97, 1000])
def test_slow_and_fast_videos(tmp_path: Path, rate: float) -> None:
    with video_writer(tmp_path / "v.mp4", rate) as video:
        video.write(picture())
    played = cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FPS)
    assert played == pytest.approx(max(rate, 1e-3), rel=0.01)


@pytest.mark.usefixtures("small_disk", "without_av")
def test_a_full_disk_is_noticed_without_av(tmp_path: Path) -> None:
    wanted = "video .*v.mp4 holds [0-9]+ of 60 pictures: free some space"
    with pytest.raises(OutputError, match=wanted), video_writer(tmp_path / "v.mp4", 2) as video:
        for _ in range(60):
            video.write(NOISE)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    with (
        pytest.raises(OutputError, match="cannot write .*v.mp4': File too large; free some space"),
        video_writer(tmp_path / "v.mp4", 2) as video,
    ):
        for _ in range(60):
            video.write(NOISE)
    assert not list(tmp_path.iterdir())
