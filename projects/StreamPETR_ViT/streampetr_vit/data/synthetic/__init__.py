"""Synthetic driving scenes in nuScenes format, for the quick start and the tests.

Scenes carry official names, so that the devkit's predefined splits find them: up to 8 training and
2 validation scenes make a `v1.0-mini` (splits mini_train and mini_val), larger sets a
`v1.0-trainval` (splits train and val). The same scenes are the custom splits synth_train and
synth_val of `splits.json`.
"""

from streampetr_vit.data.synthetic.config import PRESETS, SyntheticConfig
from streampetr_vit.data.synthetic.generate import generate
from streampetr_vit.data.synthetic.scale_tables import write_scale_tables

__all__ = ["PRESETS", "SyntheticConfig", "generate", "write_scale_tables"]
