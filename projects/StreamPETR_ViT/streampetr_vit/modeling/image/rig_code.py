"""What a head computes from the cameras alone.

Shape letters: B streams, N cameras, T image tokens, E channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RigCode:
    """What is the same for all frames of one calibration, image size and set of weights.

    In nuScenes the calibration includes the car's motion between a camera's time and the lidar's,
    and changes from frame to frame; on a car with synchronised cameras it does not.

    Attributes:
        gain, offset: modulate the image features: (B, T, E) of tokens, camera by camera, or
            (B, N, E, 1, 1) of maps.
        position: (B, T, E), the 3D position embedding of the tokens; None for heads without.
    """

    gain: Tensor
    offset: Tensor
    position: Tensor | None = None
