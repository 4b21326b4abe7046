"""Properties of the streams: complete, ordered, separate per rank, resumable."""

from __future__ import annotations

from itertools import islice

import pytest

from streampetr_vit.data.streaming_sampler import (
    StreamingBatchSampler,
    cut_sequences,
    evaluation_shard,
)

LENGTHS = (5, 4, 6, 7, 1, 9)
SETTINGS = [(1, 1, 1), (1, 3, 2), (2, 2, 2), (4, 1, 1), (3, 2, 3)]  # world, lanes, split


def _batches(count: int, world: int, lanes: int, split: int, rank: int, start: int = 0):
    sampler = StreamingBatchSampler(
        cut_sequences(LENGTHS, split), lanes, rank, world, seed=5, start_iteration=start
    )
    return list(islice(sampler, count))


@pytest.mark.parametrize(
    ("lengths", "split", "expected"),
    [
        ((40,), 2, [20, 20]),
        ((39,), 2, [20, 19]),
        ((41,), 2, [21, 20]),
        ((1,), 2, [1]),
        ((9,), 4, [3, 3, 3]),
        ((3, 5), 1, [3, 5]),
    ],
)
def test_pieces(lengths: tuple[int, ...], split: int, expected: list[int]) -> None:
    pieces = cut_sequences(lengths, split)
    assert [len(piece) for piece in pieces] == expected
    assert [i for piece in pieces for i in piece] == list(range(sum(lengths)))


def test_pieces_by_length() -> None:
    assert [len(p) for p in cut_sequences((20, 5), sequence_length=10)] == [10, 10, 5]
    assert [len(p) for p in cut_sequences((20, 5), sequence_length=8)] == [8, 8, 4, 5]


@pytest.mark.parametrize("options", [{"sequence_split": 0}, {"sequence_length": 0}])
def test_pieces_options_are_checked(options: dict) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cut_sequences(LENGTHS, **options)
    with pytest.raises(ValueError, match="not both"):
        cut_sequences(LENGTHS, sequence_split=2, sequence_length=3)


@pytest.mark.parametrize(("world", "lanes", "split"), SETTINGS)
def test_each_lane_plays_whole_sequences_in_order(world: int, lanes: int, split: int) -> None:
    sequences = {tuple(piece) for piece in cut_sequences(LENGTHS, split)}
    for rank in range(world):
        batches = _batches(80, world, lanes, split, rank)
        for lane in range(lanes):
            items = [batch[lane] for batch in batches]
            assert [item.iteration for item in items] == list(range(80))
            assert {item.slot for item in items} == {rank * lanes + lane}
            played: list[list[int]] = []
            for item in items:
                if not item.continues_stream:
                    played.append([])
                played[-1].append(item.frame)
            assert {tuple(piece) for piece in played[:-1]} <= sequences
            last = tuple(played[-1])
            assert any(piece[: len(last)] == last for piece in sequences)


@pytest.mark.parametrize(("world", "lanes", "split"), SETTINGS)
def test_lanes_partition_the_shuffled_list(world: int, lanes: int, split: int) -> None:
    """Taken together, the lanes play every sequence once before the next shuffle begins."""
    sequences = [tuple(piece) for piece in cut_sequences(LENGTHS, split)]
    total = world * lanes
    played: dict[int, list[int]] = {}
    for rank in range(world):
        for batch in _batches(400, world, lanes, split, rank):
            for item in batch:
                if not item.continues_stream:
                    first = [piece[0] for piece in sequences].index(item.frame)
                    played.setdefault(item.slot, []).append(first)
    rounds = min(len(taken) for taken in played.values())
    stream = [played[slot][turn] for turn in range(rounds) for slot in range(total)]
    complete = len(stream) // len(sequences) * len(sequences)
    assert complete > 0
    for begin in range(0, complete, len(sequences)):
        assert sorted(stream[begin : begin + len(sequences)]) == list(range(len(sequences)))


@pytest.mark.parametrize("start", [0, 1, 7, 50])
def test_resumed_stream_goes_on_where_it_was(start: int) -> None:
    whole = _batches(80, 2, 2, 2, rank=1)
    resumed = _batches(80 - start, 2, 2, 2, rank=1, start=start)
    assert resumed == whole[start:]


def test_iterating_twice_gives_the_same() -> None:
    sampler = StreamingBatchSampler(cut_sequences(LENGTHS), lanes_per_rank=2)
    assert list(islice(sampler, 30)) == list(islice(sampler, 30))


def test_too_few_sequences_and_bad_rank() -> None:
    with pytest.raises(ValueError, match="4 lanes per rank x 2 ranks.*there are 6.*sequence_split"):
        StreamingBatchSampler(cut_sequences(LENGTHS), 4, 0, 2)
    with pytest.raises(ValueError, match="at least one lane"):
        StreamingBatchSampler(cut_sequences(LENGTHS), 0)
    with pytest.raises(ValueError, match="rank 2"):
        StreamingBatchSampler(cut_sequences(LENGTHS), 1, 2, 2)


@pytest.mark.parametrize("world", [1, 2, 3, 6, 9])
def test_evaluation_shards_keep_scenes_whole(world: int) -> None:
    shards = [evaluation_shard(LENGTHS, rank, world) for rank in range(world)]
    assert [item.frame for shard in shards for item in shard] == list(range(sum(LENGTHS)))
    starts = {sum(LENGTHS[:n]) for n in range(len(LENGTHS))}
    for shard in shards:
        assert all(item.continues_stream == (item.frame not in starts) for item in shard)
    if world == 2:
        assert abs(len(shards[0]) - len(shards[1])) <= max(LENGTHS)


def test_evaluation_of_the_official_size_is_balanced() -> None:
    lengths = [40] * 100 + [41] * 19 + [40] * 31
    counts = [len(evaluation_shard(lengths, rank, 8)) for rank in range(8)]
    assert sum(counts) == sum(lengths) and max(counts) - min(counts) <= 82


def test_reference_shards_cut_scenes_and_repeat_the_first_frames() -> None:
    shards = [evaluation_shard(LENGTHS, rank, 5, "reference") for rank in range(5)]
    assert [len(shard) for shard in shards] == [7] * 5
    assert [item.frame for item in shards[-1]] == [28, 29, 30, 31, 0, 1, 2]
    assert [i.continues_stream for i in shards[-1]] == [False, True, True, True, False, True, True]
    with pytest.raises(ValueError, match="'frames'"):
        evaluation_shard(LENGTHS, 0, 1, "frames")
