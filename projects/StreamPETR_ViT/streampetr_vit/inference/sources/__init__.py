"""Where moments come from: a folder of a drive, or a data set in the nuScenes format."""

from streampetr_vit.inference.sources.base import Source
from streampetr_vit.inference.sources.folder import FolderSource
from streampetr_vit.inference.sources.nuscenes import NuScenesSource

__all__ = ["FolderSource", "NuScenesSource", "Source"]
