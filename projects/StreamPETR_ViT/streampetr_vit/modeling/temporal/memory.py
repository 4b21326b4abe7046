"""The temporal memory: what the detector remembers of earlier frames, as a value.

Shape letters: B streams, M entries, E channels, K new entries of a frame, P propagated entries.
Newest entries come first. Nothing here is a parameter, and no gradient passes through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_vit.modeling.ops.geometry import matrix_product, transform_points
from streampetr_vit.structures.tracks import NO_ID

NO_LINEAGE = NO_ID  # a tracker writes its ids as they are
UNCHANGED = -2  # in place of an id: the entry keeps its lineage


@dataclass(frozen=True)
class TemporalMemory:
    """Object queries of earlier frames.

    Between frames (after `push`) points and poses are float64 in the global frame and `time_s` is
    minus the time of the entry; within a frame (after `align`) they are float32 in the current
    lidar frame and `time_s` is the age of the entry. Entries that were never filled are zeros; the
    attention does see them (Quirk: released weights were trained so).

    What is float64 here may be float32 instead, ages included, in a graph that leaves PyTorch:
    runtimes of cars have no float64. `align` and `push` compute in the precision of the times.

    Attributes:
        embedding: (B, M, E) float32.
        center_m: (B, M, 3), float64 or float32 as above.
        time_s: (B, M, 1) float64.
        pose: (B, M, 4, 4), likewise; lidar frame of the entry's time to the frame named above.
        velocity_mps: (B, M, 2) float32, in the lidar frame of the entry's time.
        lineage: (B, M) int64, id of the track that the entry belongs to, or -1. A tracker names it,
            see `named`; no other value depends on it.
    """

    embedding: Tensor
    center_m: Tensor
    time_s: Tensor
    pose: Tensor
    velocity_mps: Tensor
    lineage: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> TemporalMemory:
        """Applies a function to every tensor."""
        return TemporalMemory(*(function(getattr(self, field.name)) for field in fields(self)))

    @staticmethod
    def empty(
        batch: int, length: int, dim: int, device: torch.device | str = "cpu"
    ) -> TemporalMemory:
        """A memory without any entry: all zeros, and no lineage."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(batch, length, *shape, dtype=dtype, device=device)

        exact, network = torch.float64, torch.float32
        return TemporalMemory(
            embedding=zeros(dim, dtype=network),
            center_m=zeros(3, dtype=exact),
            time_s=zeros(1, dtype=exact),
            pose=zeros(4, 4, dtype=exact),
            velocity_mps=zeros(2, dtype=network),
            lineage=torch.full((batch, length), NO_LINEAGE, device=device),
        )


def align(
    memory: TemporalMemory,
    length: int,
    continues_stream: Tensor,
    global_to_lidar: Tensor,
    timestamp_s: Tensor,
    start_points_m: Tensor,
) -> TemporalMemory:
    """Brings a memory into the current lidar frame and voids it where a stream starts anew.

    Args:
        memory: as `push` or `TemporalMemory.empty` left it, at least `length` entries.
        length: entries to keep.
        continues_stream, global_to_lidar, timestamp_s: as in `Frame`.
        start_points_m: (P, 3), centres of the first P entries of a stream that starts.
    """
    # Global coordinates are kilometres in nuScenes, and thousands of them in UTM: there float32
    # tells two places apart from 0.1 mm, or only from 0.5 m, on. So they are float64. What reaches
    # the network is relative to the lidar, where float32 is exact to micrometres.
    global_to_lidar = global_to_lidar.to(memory.time_s.dtype)
    moved = TemporalMemory(
        embedding=memory.embedding,
        center_m=transform_points(memory.center_m, global_to_lidar).float(),
        time_s=memory.time_s + timestamp_s[:, None, None],
        pose=matrix_product(global_to_lidar[:, None], memory.pose).float(),
        velocity_mps=memory.velocity_mps,  # stays in the frame of its time; the pose tells which
        lineage=memory.lineage,
    )

    def keep(value: Tensor, void: Tensor | float = 0) -> Tensor:
        # where, not a product: a NaN must not outlive the reset of its stream.
        flag = continues_stream.view(-1, *([1] * (value.dim() - 1)))  # (B,) -> (B, 1, ...)
        return torch.where(flag, value[:, :length], void)

    # A stream that starts has P queries more all the same, at fixed places and with no motion.
    unused = length - len(start_points_m)
    identity = torch.eye(4, device=start_points_m.device).expand(len(start_points_m), 4, 4)
    return TemporalMemory(
        embedding=keep(moved.embedding),
        center_m=keep(moved.center_m, F.pad(start_points_m, (0, 0, 0, unused))),  # (M, 3)
        time_s=keep(moved.time_s),
        pose=keep(moved.pose, F.pad(identity, (0, 0, 0, 0, 0, unused))),  # (M, 4, 4)
        velocity_mps=keep(moved.velocity_mps),
        lineage=keep(moved.lineage, NO_LINEAGE),
    )


def best_queries(scores: Tensor, count: int) -> Tensor:
    """(B, K) int64, the queries that a memory takes: the best `count` by (B, Q) scores."""
    return scores.topk(count, dim=1).indices


def push(
    memory: TemporalMemory,
    best: Tensor,
    embedding: Tensor,
    center_m: Tensor,
    velocity_mps: Tensor,
    lineage: Tensor,
    lidar_to_global: Tensor,
    timestamp_s: Tensor,
) -> TemporalMemory:
    """Puts the best queries of the current frame first and moves everything to the global frame.

    Args:
        memory: as `align` left it.
        best: (B, K) int64 of `best_queries`; the queries that are remembered.
        embedding, center_m, velocity_mps, lineage: (B, Q, E), (B, Q, 3), (B, Q, 2), (B, Q) of the
            queries.
        lidar_to_global, timestamp_s: as in `Frame`.
    """
    rows = torch.arange(len(best), device=best.device)[:, None]

    def first(new: Tensor, old: Tensor) -> Tensor:
        return torch.cat((new[rows, best].detach(), old), dim=1)  # (B, K + M, ...), newest first

    # In this frame a new entry has the identity as pose and the age 0.
    identity = torch.eye(4, device=best.device).expand(*best.shape, 4, 4)
    pose = torch.cat((identity, memory.pose), dim=1)
    time_s = torch.cat((memory.time_s.new_zeros(*best.shape, 1), memory.time_s), dim=1)
    lidar_to_global = lidar_to_global.to(memory.time_s.dtype)  # see `align`
    return TemporalMemory(
        embedding=first(embedding, memory.embedding),
        center_m=transform_points(first(center_m, memory.center_m), lidar_to_global),
        # An age minus now is minus the entry's time; the next frame adds its own time to that.
        time_s=time_s - timestamp_s[:, None, None],
        pose=matrix_product(lidar_to_global[:, None], pose),
        velocity_mps=first(velocity_mps, memory.velocity_mps),
        lineage=first(lineage, memory.lineage),
    )


def named(memory: TemporalMemory, remembered: Tensor, ids: Tensor) -> TemporalMemory:
    """The memory after a frame, with the ids that a tracker has given to the queries of the frame.

    Args:
        memory: as `push` left it.
        remembered: (B, K) int64, queries of its newest entries, see `best_queries`.
        ids: (B, Q) int64 of all queries: the id of a track, `NO_LINEAGE`, or `UNCHANGED`.
    """
    given = ids.gather(1, remembered)  # (B, K)
    newest = memory.lineage[:, : remembered.shape[1]]
    lineage = memory.lineage.clone()
    lineage[:, : remembered.shape[1]] = torch.where(given == UNCHANGED, newest, given)
    return replace(memory, lineage=lineage)
