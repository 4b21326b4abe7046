"""Synthetic driving scenes in nuScenes format, for the quick start and the tests.

Scenes carry official names, so that the devkit's predefined splits find them: up to 8 training and
2 validation scenes make a `v1.0-mini` (splits mini_train and mini_val), larger sets a
`v1.0-trainval` (splits train and val). The same scenes are the custom splits synth_train and
synth_val of `splits.json`. A `SyntheticConfig` may also ask for another rig, other category names,
no lidar, and a version with its own splits.

The package needs numpy, OpenCV and tqdm, and the devkit for the official scene names only.
"""

from synthetic_nuscenes.config import PRESETS, SyntheticConfig
from synthetic_nuscenes.errors import ConfigError, FolderTakenError, SyntheticError
from synthetic_nuscenes.generate import generate
from synthetic_nuscenes.rig import CameraSpec

__all__ = [
    "PRESETS",
    "CameraSpec",
    "ConfigError",
    "FolderTakenError",
    "SyntheticConfig",
    "SyntheticError",
    "generate",
]
