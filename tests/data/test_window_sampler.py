"""Windows: which frames, which flags, every frame once per epoch, separate per rank, resumable."""

from __future__ import annotations

from itertools import combinations, islice

import pytest
import torch

from streampetr_vit.data.window_sampler import Window, WindowBatchSampler

LENGTHS = (5, 4, 6, 7, 1, 9)  # 32 frames
SETTINGS = [(1, 1), (1, 3), (2, 2), (4, 2), (3, 3), (5, 8)]  # world, lanes


def _batches(count: int, world: int = 1, lanes: int = 1, rank: int = 0, **options):
    values = {"window_length": 4, "window_drop": 1, "seed": 5, **options}
    lengths = values.pop("lengths", LENGTHS)
    sampler = WindowBatchSampler(
        lengths, lanes_per_rank=lanes, rank=rank, world_size=world, **values
    )
    return list(islice(sampler, count))


def _by_last_frame(lengths: tuple[int, ...], **options) -> dict[int, Window]:
    windows = [batch[0] for batch in _batches(sum(lengths), lengths=lengths, **options)]
    return {window[-1].frame: window for window in windows}


def _frames(window: Window) -> list[int]:
    return [item.frame for item in window]


def _flags(window: Window) -> list[bool]:
    return [item.continues_stream for item in window]


def test_frames_and_flags_without_drops() -> None:
    """Scenes of 3 and 2 frames, by hand."""
    windows = _by_last_frame((3, 2), window_length=3, window_drop=0)
    assert {last: _frames(window) for last, window in windows.items()} == {
        0: [0, 0, 0],
        1: [0, 0, 1],
        2: [0, 1, 2],
        3: [1, 2, 3],
        4: [2, 3, 4],
    }
    assert {last: _flags(window) for last, window in windows.items()} == {
        0: [False, True, True],
        1: [False, True, True],
        2: [False, True, True],
        3: [False, True, False],
        4: [False, False, True],
    }


def test_windows_of_one_frame() -> None:
    windows = _by_last_frame((2, 2), window_length=1, window_drop=1)
    assert {last: (_frames(w), _flags(w)) for last, w in windows.items()} == {
        n: ([n], [False]) for n in range(4)
    }


@pytest.mark.parametrize(("length", "drop"), [(2, 1), (3, 1), (3, 2), (8, 1)])
def test_any_of_the_candidates_may_be_dropped(length: int, drop: int) -> None:
    """All subsets occur, none other, in order; before the first frame stands the first frame."""
    seen: dict[int, set[tuple[int, ...]]] = {}
    for (window,) in _batches(12 * 250, lengths=(12,), window_length=length, window_drop=drop):
        assert len(window) == length
        *earlier, last = _frames(window)
        seen.setdefault(last, set()).add(tuple(earlier))
    for last, subsets in seen.items():
        candidates = [max(0, n) for n in range(last - length - drop + 1, last)]
        assert subsets == set(combinations(candidates, length - 1))


@pytest.mark.parametrize(("world", "lanes"), SETTINGS)
def test_every_frame_once_per_epoch_apart_from_padding(world: int, lanes: int) -> None:
    total = sum(LENGTHS)
    iterations = -(-total // (world * lanes))
    for epoch in range(3):
        last, shares = [], []
        for rank in range(world):
            batches = _batches(3 * iterations, world, lanes, rank)[epoch * iterations :]
            share = [window[-1] for batch in batches[:iterations] for window in batch]
            assert {item.slot for item in share} == set(range(rank * lanes, (rank + 1) * lanes))
            last += [item.frame for item in share]
            shares.append({item.frame for item in share})
        assert set(last) == set(range(total))
        # No frame is repeated twice before every frame is repeated once.
        assert {last.count(frame) for frame in last} <= {len(last) // total, -(-len(last) // total)}
        if len(last) == total:
            assert sum(len(share) for share in shares) == total  # ranks are disjoint


def test_order_of_an_epoch() -> None:
    """A permutation, filled up from its start, in blocks that are shuffled again."""
    for epoch in range(2):
        generator = torch.Generator().manual_seed(5 + epoch)
        order = torch.randperm(32, generator=generator).tolist()
        order += order[:4]  # to a multiple of 2 ranks x 3 lanes
        blocks = [order[3 * n : 3 * n + 3] for n in range(12)]
        blocks = [blocks[n] for n in torch.randperm(12, generator=generator).tolist()]
        for rank in range(2):
            batches = _batches(12, 2, 3, rank)[6 * epoch : 6 * epoch + 6]
            played = [[window[-1].frame for window in batch] for batch in batches]
            assert played == blocks[6 * rank : 6 * rank + 6]


def test_items_of_a_window_share_iteration_and_slot() -> None:
    for iteration, batch in enumerate(_batches(30, 2, 2, rank=1)):
        for lane, window in enumerate(batch):
            assert {(item.iteration, item.slot) for item in window} == {(iteration, 2 + lane)}


@pytest.mark.parametrize("start", [0, 1, 7, 8, 50])
def test_resumed_order_goes_on_where_it_was(start: int) -> None:
    whole = _batches(80, 2, 2, rank=1)
    assert _batches(80 - start, 2, 2, rank=1, start_iteration=start) == whole[start:]


@pytest.mark.parametrize(("world", "lanes"), [(2, 1), (1, 2), (2, 2)])
def test_every_lane_of_every_rank_drops_frames_of_its_own(world: int, lanes: int) -> None:
    """Frames are dropped independently: two windows that are equal by chance are few."""
    ranks = [
        _batches(50, world, lanes, rank, lengths=(1000,), window_length=8, window_drop=8)
        for rank in range(world)
    ]
    same = 0
    for batches in zip(*ranks, strict=True):
        windows = [window for batch in batches for window in batch]
        # How far the frames lie before the last one; none reaches beyond the first frame.
        back = [tuple(w[-1].frame - item.frame for item in w) for w in windows if w[-1].frame > 20]
        same += len(back) - len(set(back))
    assert same <= 2


def test_iterating_twice_gives_the_same_and_seeds_differ() -> None:
    sampler = WindowBatchSampler(LENGTHS, 4)
    assert list(islice(sampler, 60)) == list(islice(sampler, 60))
    assert _batches(60, seed=1) != _batches(60, seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_length": 0}, "window_length must be at least 1, not 0"),
        ({"window_drop": -1}, "window_drop must be at least 0, not -1"),
        ({"lanes": 0}, "lanes_per_rank must be at least 1, not 0"),
        ({"lengths": ()}, "the number of frames must be at least 1, not 0"),
        ({"rank": 2, "world": 2}, "rank 2 is not in 0 .. 1"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _batches(1, **options)
