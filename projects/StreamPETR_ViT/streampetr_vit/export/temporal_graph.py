"""The head's graph without its image: the memory protocol of Autoware's node.

Shape letters: E channels, P memory entries that go in, Q queries, K classes.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from streampetr_vit.export.frames import Mounting
from streampetr_vit.modeling.heads.temporal_head import TemporalHead
from streampetr_vit.modeling.ops.geometry import denormalize_from_range
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, TemporalMemory, align

# An age below this is of a clock that was set back: a clock that merely jitters is never so wrong.
_CLOCK_SET_BACK_S = -60.0


class TemporalGraph(nn.Module):
    """Features, pose and memory to boxes and memory. A subclass makes the `image`.

    It is the detector's step with three differences: the caller gives ages, in float32; poses are
    those of the mounting's frame; and the graph itself decides where a stream starts.

    Args:
        mounting: of the frame that `data_ego_pose` is the pose of.
    """

    def __init__(self, head: TemporalHead, mounting: Mounting) -> None:
        super().__init__()
        self.head, self.mounting = head, mounting

    @abstractmethod
    def image(self, x: Tensor, pos_embed: Tensor, cone: Tensor, points_m: Tensor) -> object:
        """What the decoder's queries look at.

        Args:
            x, pos_embed, cone: of the other two graphs.
            points_m: (1, Q, 3) reference points of the queries, metres, lidar frame.
        """

    def forward(
        self,
        x: Tensor,
        pos_embed: Tensor,
        cone: Tensor,
        data_ego_pose: Tensor,
        data_ego_pose_inv: Tensor,
        pre_memory_embedding: Tensor,
        pre_memory_reference_point: Tensor,
        pre_memory_timestamp: Tensor,
        pre_memory_egopose: Tensor,
        pre_memory_velo: Tensor,
    ) -> tuple[Tensor, ...]:
        """Arguments and results as in `interface.Interface.head`, in its order."""
        lidar_to_global = self.mounting.from_lidar(data_ego_pose)
        global_to_lidar = self.mounting.to_lidar(data_ego_pose_inv)
        # Entry 0 is a real one after any frame; before the first frame and after a wipe all are 0.
        # The node counts its seconds anew every ten minutes: then all ages are about -600.
        continues_stream = (pre_memory_egopose[:, 0, 3, 3] > 0.5) & (
            pre_memory_timestamp[:, 0, 0] > _CLOCK_SET_BACK_S
        )
        lineage = torch.full(pre_memory_embedding.shape[:2], NO_LINEAGE)
        memory = TemporalMemory(
            pre_memory_embedding,
            pre_memory_reference_point,
            pre_memory_timestamp,
            pre_memory_egopose,
            pre_memory_velo,
            lineage,
        )
        # The caller keeps the time: ages come in, and ages go out.
        now = pre_memory_timestamp.new_zeros(1)
        head = self.head
        aligned = align(
            memory,
            head.memory_length,
            continues_stream,
            global_to_lidar,
            now,
            head.start_points_m,
        )
        queries = head.make_queries(aligned)
        points_m = denormalize_from_range(queries.reference_points, head.point_cloud_range)
        image = self.image(x, pos_embed, cone, points_m)
        output = head.predict(queries, image, points_m, aligned.lineage, last_only=True)
        after = head.remember(output, aligned, lidar_to_global, now)
        codes = self.mounting.codes_to_graph(output.codes[-1])  # (1, Q, 10)
        return (
            output.logits[-1].transpose(1, 2),  # (1, Q, K) -> (1, K, Q)
            codes.transpose(1, 2),  # (1, 10, Q)
            after.embedding,
            after.center_m,
            after.time_s,
            after.pose,
            after.velocity_mps,
        )
