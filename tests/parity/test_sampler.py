"""The order in which frames are played equals the reference's, index by index."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import golden
import pytest

from streampetr_vit.data.streaming_sampler import (
    StreamingBatchSampler,
    cut_sequences,
    evaluation_shard,
)

FILES = golden.files_of("sampler")


def _sequences(case: dict) -> list[range]:
    split = case["seq_split_num"]
    if split == "all":
        return cut_sequences(case["scene_lengths"], sequence_length=1)
    return cut_sequences(case["scene_lengths"], sequence_split=split)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sequences_and_stream_starts(path: Path) -> None:
    data = golden.load(path)
    for case, expected in zip(data["inputs"], data["outputs"], strict=True):
        sequences = _sequences(case)
        flag = [number for number, frames in enumerate(sequences) for _ in frames]
        assert flag == expected["flag"]
        first = {frames[0] for frames in sequences}
        assert [int(i not in first) for i in range(len(flag))] == expected["prev_exists"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_training_batches(path: Path) -> None:
    data = golden.load(path)
    for case, expected in zip(data["inputs"], data["outputs"], strict=True):
        for rank in range(case["world_size"]):
            sampler = StreamingBatchSampler(
                _sequences(case),
                lanes_per_rank=case["batch_size_per_gpu"],
                rank=rank,
                world_size=case["world_size"],
                seed=case["seed"],
            )
            batches = list(islice(sampler, case["num_batches"]))
            indices = [[item.frame for item in batch] for batch in batches]
            assert indices == expected["train_batches_per_rank"][rank]
            for item in (item for batch in batches for item in batch):
                assert item.continues_stream == bool(expected["prev_exists"][item.frame])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evaluation_order_in_reference_mode(path: Path) -> None:
    data = golden.load(path)
    for case, expected in zip(data["inputs"], data["outputs"], strict=True):
        for rank, indices in enumerate(expected["test_indices_per_rank"]):
            items = evaluation_shard(case["scene_lengths"], rank, case["world_size"], "reference")
            assert [item.frame for item in items] == indices
