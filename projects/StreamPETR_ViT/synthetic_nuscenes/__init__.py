"""Synthetic driving scenes in nuScenes format, for the quick start and the tests.

Scenes carry official names, so that the devkit's predefined splits find them: up to 8 training and
2 validation scenes make a `v1.0-mini` (splits mini_train and mini_val), larger sets a
`v1.0-trainval` (splits train and val). The same scenes are the custom splits synth_train and
synth_val of `splits.json`.
"""

from synthetic_nuscenes.config import PRESETS, SyntheticConfig
from synthetic_nuscenes.generate import generate

__all__ = ["PRESETS", "SyntheticConfig", "generate"]
