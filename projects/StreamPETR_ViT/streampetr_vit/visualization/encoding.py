"""Pictures as files and as bytes of files."""

from __future__ import annotations

from pathlib import Path

import cv2

from streampetr_vit.errors import OutputError
from streampetr_vit.files import replacing
from streampetr_vit.visualization.drawing import Image


def save_picture(path: str | Path, image: Image) -> None:
    """Writes a picture as PNG or JPEG, by the ending of its name.

    Raises:
        OutputError: the file could not be written.
    """
    with replacing(path) as temporary:
        # OpenCV takes BGR, and would hide in `imwrite` why a write failed.
        encoded, data = cv2.imencode(Path(path).suffix, image[:, :, ::-1])
        if not encoded:
            raise OutputError(f"could not encode a picture for {path}; end its name with .png")
        temporary.write_bytes(data.tobytes())


def encode_jpeg(image: Image, quality: int = 85) -> bytes:
    """The bytes of a JPEG file of an RGB picture."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
