"""Moments whose pictures a drawing can use: of cameras without distortion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from streampetr_vit.data.image_io import read_rgb
from streampetr_vit.inference.undistortion import UndistortedCamera, undistorted
from streampetr_vit.structures import Moment, Rig
from streampetr_vit.structures.moment import Picture


class UndistortedMoments:
    """Straightens the pictures of moments; the maps for it are kept for the last rig."""

    def __init__(self) -> None:
        self._bent: Rig | None = None
        self._undistorted: Rig | None = None
        self._cameras: dict[str, UndistortedCamera] = {}

    def __call__(self, moment: Moment) -> Moment:
        """The moment with straight pictures and a rig that they are of; itself if it has both."""
        if all(camera.distortion is None for camera in moment.rig.cameras):
            return moment
        if moment.rig is not self._bent:
            self._cameras = {camera.name: undistorted(camera) for camera in moment.rig.cameras}
            cameras = [straight.camera for straight in self._cameras.values()]
            self._undistorted = Rig(cameras, moment.rig.reference_to_vehicle)
            self._bent = moment.rig
        assert self._undistorted is not None
        pictures = {
            name: self._picture(self._cameras[name], picture)
            for name, picture in moment.pictures.items()
        }
        return replace(moment, rig=self._undistorted, pictures=pictures)

    def _picture(self, straight: UndistortedCamera, picture: Picture) -> Picture:
        if picture is None or straight.maps is None:
            return picture
        if not isinstance(picture, np.ndarray):
            size = straight.camera.width, straight.camera.height
            picture = read_rgb(Path(picture), size, "the rig")
        return straight.apply(picture)
