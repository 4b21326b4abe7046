"""What evaluators of all tasks do with the samples of all processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from detectron2.utils import comm

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.sample_tokens import check_samples, require_none
from streampetr_vit.structures import Pose, Sample

T = TypeVar("T")


def gather_parts(part: T, distributed: bool) -> list[T] | None:
    """The parts of all processes in rank order; None outside the main process.

    Args:
        part: of this process.
        distributed: False takes only that, on every process.
    """
    if not distributed or comm.get_world_size() == 1:
        return [part]
    # On the CPU's group: here processes also wait for rank 0 to score an evaluation before.
    parts = comm.gather(part, dst=0)
    return parts if comm.is_main_process() else None


def check_tokens(tokens: Sequence[str], wanted: Sequence[str], allow_padding: bool) -> None:
    """Raises InputError unless each wanted sample is among the tokens, once.

    Args:
        tokens: of the samples that are there.
        wanted: of the data set.
        allow_padding: a sample may come more than once.
    """
    check_samples(
        tokens,
        wanted,
        "got no detections; run the test loader over the whole set",
        "are not in the evaluator's data set; give it the loader's",
    )
    counts = Counter(tokens)
    twice = [] if allow_padding else [token for token in counts if counts[token] > 1]
    require_none(
        twice,
        len(counts),
        "were evaluated more than once; give every process its own samples (the loader's "
        'sharding="scene"), or set allow_padding=True',
    )


def in_order(
    samples: Sequence[T], token_of: Callable[[T], str], wanted: Sequence[str], allow_padding: bool
) -> list[T]:
    """The samples in the order of the data set, after `check_tokens`; of equal ones the first."""
    check_tokens([token_of(sample) for sample in samples], wanted, allow_padding)
    # Reversed, so that of samples that come twice the first stays.
    first = {token_of(sample): sample for sample in reversed(samples)}
    return [first[token] for token in wanted]


def token_and_poses(sample: Sample | Mapping[str, Any]) -> tuple[str, Pose, Pose]:
    """What results need of a sample: token, lidar_to_ego, ego_to_global.

    Raises:
        InputError: the sample lacks one of them.
    """
    if not isinstance(sample, (Sample, Mapping)):
        raise InputError(f"give one Sample or dict per output, not {type(sample).__name__}")
    # Not `Sample.of`: other projects' loaders make dicts without pictures and matrices.
    values = vars(sample) if isinstance(sample, Sample) else sample
    names = ("sample_token", "lidar_to_ego", "ego_to_global")
    missing = [name for name in names if values.get(name) is None]
    if missing:
        raise InputError(
            f"sample {values.get('sample_token')!r} has no {' and '.join(missing)}: the results "
            "need its token and both poses"
        )
    return values["sample_token"], values["lidar_to_ego"], values["ego_to_global"]
