"""Which frame each stream plays next, in training and in evaluation.

Training plays sequences (a scene or a piece of one) in lanes. Every lane of every rank takes its
sequences from one endless, shuffled list and plays each from its first to its last frame, one frame
per iteration. A batch is the current frame of each lane. Source: the index sequence of StreamPETR's
InfiniteGroupEachSampleInBatchSampler.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from streampetr_vit.errors import InputError


class StreamItem(NamedTuple):
    """One frame to load. Its iteration and slot seed its random draws."""

    frame: int  # row of the records
    continues_stream: bool  # the frame before this one is the lane's in the iteration before
    iteration: int  # number of the batch
    slot: int  # number of the lane among those of all ranks


def cut_sequences(
    scene_lengths: Sequence[int], sequence_split: int = 1, sequence_length: int | None = None
) -> list[range]:
    """Cuts scenes into the sequences that training plays.

    Args:
        scene_lengths: frames of each scene; scenes are adjacent.
        sequence_split: pieces per scene, of ceil(n / sequence_split) frames; the last is shorter,
            and short scenes yield fewer pieces.
        sequence_length: frames per piece instead.

    Returns:
        Frame indices of each sequence.

    Raises:
        InputError: numbers that make no sequence.
    """
    if sequence_length is not None and sequence_split != 1:
        raise InputError(
            f"give sequence_split ({sequence_split}) or sequence_length ({sequence_length}), "
            "not both"
        )
    if sequence_split < 1 or (sequence_length is not None and sequence_length < 1):
        raise InputError(
            "sequence_split and sequence_length must be at least 1, not "
            f"{sequence_split} and {sequence_length}"
        )
    sequences, start = [], 0
    for length in scene_lengths:
        piece = sequence_length or -(-length // sequence_split)  # rounded up
        end = start + length
        sequences += [range(first, min(first + piece, end)) for first in range(start, end, piece)]
        start = end
    return sequences


class StreamingBatchSampler:
    """Endless batches of `StreamItem`, one per lane of this rank.

    Args:
        sequences: frame indices of each sequence, from `cut_sequences`.
        lanes_per_rank: batch size of a rank.
        rank, world_size: which lanes are this rank's.
        seed: of the shuffles, the same on every rank.
        start_iteration: batches to pass over, for a resumed run; its batches are those that an
            uninterrupted one plays.

    Raises:
        InputError: there are fewer sequences than lanes.
    """

    def __init__(
        self,
        sequences: Sequence[range],
        lanes_per_rank: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        start_iteration: int = 0,
    ):
        slots = lanes_per_rank * world_size
        if not 0 < slots <= len(sequences):
            raise InputError(
                f"{lanes_per_rank} lanes per rank x {world_size} ranks need at least as many "
                f"sequences (and at least one lane), there are {len(sequences)}; use fewer lanes, "
                "cut the scenes into more pieces (sequence_split) or take more scenes"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. {world_size - 1}")
        self.sequences = list(sequences)
        self.lanes_per_rank = lanes_per_rank
        self.slots = range(rank * lanes_per_rank, (rank + 1) * lanes_per_rank)
        self.total_slots = slots
        self.seed = seed
        self.start_iteration = start_iteration

    def signature(self) -> dict[str, int]:
        """What a number of delivered batches is a position in."""
        sequences = len(self.sequences)
        return {"sequences": sequences, "total_slots": self.total_slots, "seed": self.seed}

    def __iter__(self) -> Iterator[list[StreamItem]]:
        order = _EndlessShuffle(len(self.sequences), self.seed)
        # A lane is always the same row of the batch, where the trainer keeps its memory.
        lanes = [self._lane(slot, order) for slot in self.slots]
        while True:
            yield [next(lane) for lane in lanes]

    def _lane(self, slot: int, order: _EndlessShuffle) -> Iterator[StreamItem]:
        """Plays the sequences at places slot, slot + total_slots, ... of the shuffled list."""
        iteration, place = 0, slot
        while True:
            sequence = self.sequences[order[place]]
            # All iterations from the first one on are counted: a resumed run then plays the frames
            # that the uninterrupted one would have played.
            skipped = min(len(sequence), max(0, self.start_iteration - iteration))
            iteration += skipped
            for position in range(skipped, len(sequence)):
                yield StreamItem(sequence[position], position > 0, iteration, slot)
                iteration += 1
            place += self.total_slots  # the other lanes of all ranks take those between


class _EndlessShuffle:
    """Random permutations of range(count), one after the other, drawn as they are needed."""

    def __init__(self, count: int, seed: int):
        self._count = count
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: list[int] = []

    def __getitem__(self, place: int) -> int:
        while place >= len(self._drawn):
            self._drawn += torch.randperm(self._count, generator=self._generator).tolist()
        return self._drawn[place]


def evaluation_shard(
    scene_lengths: Sequence[int], rank: int = 0, world_size: int = 1, sharding: str = "scene"
) -> list[StreamItem]:
    """The frames that one rank evaluates, in temporal order.

    Args:
        scene_lengths: frames of each scene; scenes are adjacent.
        rank, world_size: which part.
        sharding: "scene" gives each rank whole scenes. "reference" cuts equal blocks, filled up
            with the first frames, as the published numbers were made (with 8 ranks).
    """
    scene_of_frame = [scene for scene, length in enumerate(scene_lengths) for _ in range(length)]
    total = len(scene_of_frame)
    if sharding == "scene":  # no stream is cut: the result is the same for any number of ranks
        begin, end = (_scene_boundary(scene_lengths, r, world_size) for r in (rank, rank + 1))
        indices = list(range(begin, end))
    elif sharding == "reference":
        per_rank = -(-total // world_size)
        block = range(rank * per_rank, (rank + 1) * per_rank)
        indices = [index % total for index in block]  # past the end: the first frames again
    else:
        raise InputError(f'sharding must be "scene" or "reference", not {sharding!r}')
    items = []
    for iteration, index in enumerate(indices):
        # At a cut, and at the first frames that fill up the last block, a stream starts anew.
        follows = iteration > 0 and indices[iteration - 1] == index - 1
        continues = follows and scene_of_frame[index - 1] == scene_of_frame[index]
        items.append(StreamItem(index, continues, iteration, rank))
    return items


def _scene_boundary(scene_lengths: Sequence[int], rank: int, world_size: int) -> int:
    """The first frame of a rank: the scene start nearest to an equal share of the frames."""
    starts = [0, *itertools.accumulate(scene_lengths)]
    share = starts[-1] * rank / world_size
    return min(starts, key=lambda start: abs(start - share))
