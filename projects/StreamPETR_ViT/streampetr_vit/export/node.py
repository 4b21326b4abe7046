"""What Autoware's node does from frame to frame, with onnxruntime in place of TensorRT.

Source: the node's network.cpp and memory.cu, as they were before July 2026: the buffer of times is
neither filled at the start nor cleared by a wipe.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streampetr_vit.export.interface import MEMORY
from streampetr_vit.export.sessions import Sessions

_UNFILLED = 12345.0  # stands for whatever a memory that nobody has filled holds


class Node:
    """Three graphs and the buffers between their calls, all float32.

    Args:
        sessions: of one export.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._entries = sessions.interface.memory_in
        self._code: tuple[np.ndarray, np.ndarray] | None = None
        self._times_s = np.full((1, sessions.interface.memory_out, 1), _UNFILLED, dtype=np.float32)
        self.wipe()

    def wipe(self) -> None:
        """Forgets what was seen: the next frame starts a stream."""
        inputs = self._sessions.interface.head.inputs
        self._memory = {
            name: np.zeros(inputs[f"pre_memory_{name}"], dtype=np.float32)
            for name in MEMORY
            if name != "timestamp"
        }

    def __call__(
        self,
        img: np.ndarray,
        intrinsics: np.ndarray,
        img2lidar: np.ndarray,
        ego_pose: np.ndarray,
        stamp_s: float,
    ) -> Mapping[str, np.ndarray]:
        """Detects in the next frame.

        Args:
            img: (1, N, 3, H, W) normalised pictures.
            intrinsics, img2lidar: (1, N, 4, 4) of the first frame's rig; later ones are not read.
            ego_pose: (4, 4) float64, of the vehicle in a frame of the map that begins near it.
            stamp_s: seconds since the first frame.

        Returns:
            The head's outputs by their names.
        """
        if self._code is None:
            height, width = self._sessions.interface.image_size
            size = np.array([height, width, 3], dtype=np.float32)
            self._code = self._sessions.position(size, intrinsics, img2lidar)
        stamp = np.float32(stamp_s)
        found = self._sessions.head(
            x=self._sessions.backbone(img),
            pos_embed=self._code[0],
            cone=self._code[1],
            data_ego_pose=ego_pose[None].astype(np.float32),
            data_ego_pose_inv=np.linalg.inv(ego_pose)[None].astype(np.float32),
            pre_memory_timestamp=self._times_s[:, : self._entries] + stamp,
            **{f"pre_memory_{name}": value for name, value in self._memory.items()},
        )
        self._times_s = found["post_memory_timestamp"] - stamp
        self._memory = {
            name: np.ascontiguousarray(found[f"post_memory_{name}"][:, : self._entries])
            for name in self._memory
        }
        return found
