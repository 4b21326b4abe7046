"""Which short clips ("windows") training plays when no memory is kept between iterations.

Every frame of the data set is the last frame of one window per epoch, behind recent predecessors of
which some are dropped at random. Source: the sliding-window mode of StreamPETR (its data set's
queue and its DistributedGroupSampler).

Shape letters: Q frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from streampetr_vit.data.streaming_sampler import StreamItem
from streampetr_vit.errors import InputError

Window = tuple[StreamItem, ...]


class WindowBatchSampler:
    """Endless batches of windows, one per lane of this rank.

    A window is Q items in temporal order that share one iteration and slot. A resumed run plays
    what the uninterrupted one would have played.

    Args:
        scene_lengths: frames of each scene; scenes are adjacent.
        window_length: Q.
        window_drop: the other frames are chosen from the Q - 1 + window_drop before the last one.
        lanes_per_rank: windows of a rank's batch.
        rank, world_size: which windows are this rank's.
        seed: of the order and of what is dropped, the same on every rank.
        start_iteration: batches to pass over.

    Raises:
        InputError: a length, a drop or a number of lanes that makes no window.
    """

    def __init__(
        self,
        scene_lengths: Sequence[int],
        window_length: int,
        window_drop: int = 1,
        lanes_per_rank: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        start_iteration: int = 0,
    ):
        for name, value, least in (
            ("window_length", window_length, 1),
            ("window_drop", window_drop, 0),
            ("lanes_per_rank", lanes_per_rank, 1),
            ("the number of frames", sum(scene_lengths), 1),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, not {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. {world_size - 1}")
        self.window_length, self.window_drop = window_length, window_drop
        self.lanes_per_rank, self.rank = lanes_per_rank, rank
        self.total_slots = lanes_per_rank * world_size
        self.seed, self.start_iteration = seed, start_iteration
        self._scene_of_frame = np.repeat(np.arange(len(scene_lengths)), scene_lengths)

    @property
    def epoch_iterations(self) -> int:
        """Batches of an epoch, in which every frame is the last of at least one window."""
        return -(-len(self._scene_of_frame) // self.total_slots)

    def signature(self) -> dict[str, int]:
        """What a number of delivered batches is a position in."""
        return {
            "frames": len(self._scene_of_frame),
            "window_length": self.window_length,
            "window_drop": self.window_drop,
            "total_slots": self.total_slots,
            "seed": self.seed,
        }

    def __iter__(self) -> Iterator[list[Window]]:
        epoch, skipped = divmod(self.start_iteration, self.epoch_iterations)
        while True:
            frames = self._epoch_frames(epoch)
            for place in range(skipped, self.epoch_iterations):
                iteration = epoch * self.epoch_iterations + place
                batch = frames[place * self.lanes_per_rank :][: self.lanes_per_rank]
                yield [self._window(frame, iteration, lane) for lane, frame in enumerate(batch)]
            epoch, skipped = epoch + 1, 0

    def _epoch_frames(self, epoch: int) -> list[int]:
        """The last frames of this rank's windows in an epoch, batch after batch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        count = len(self._scene_of_frame)
        order = torch.randperm(count, generator=generator)
        # Filled up to whole batches of all ranks with the first frames of the shuffled order.
        padded = torch.arange(self.epoch_iterations * self.total_slots) % count
        # (slots of an epoch,) -> (batches of all ranks, lanes of a rank)
        blocks = order[padded].reshape(-1, self.lanes_per_rank)
        blocks = blocks[torch.randperm(len(blocks), generator=generator)]
        share = blocks[self.rank * self.epoch_iterations :][: self.epoch_iterations]
        return share.flatten().tolist()

    def _window(self, last: int, iteration: int, lane: int) -> Window:
        slot = self.rank * self.lanes_per_rank + lane
        # The frames of a window are seeded by their position, 0 .. Q - 1; this is one more draw.
        rng = np.random.default_rng([self.seed, iteration, slot, self.window_length])
        kept = self.window_length - 1
        # Dropping some makes the time between frames vary.
        earlier = rng.choice(kept + self.window_drop, kept, replace=False)
        first = last - kept - self.window_drop
        # Before the first frame of the data set there is none: it is repeated.
        frames = [max(0, first + int(place)) for place in np.sort(earlier)] + [last]
        # Windows reach back into other scenes: the stream starts anew where the scene changes.
        scenes = self._scene_of_frame[frames]
        continues = [False, *(scenes[1:] == scenes[:-1]).tolist()]
        return tuple(
            StreamItem(frame, flag, iteration, slot)
            for frame, flag in zip(frames, continues, strict=True)
        )
