"""Results files that the devkit can score, of any task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_format import read_submission
from streampetr_vit.evaluation.sample_tokens import check_file_samples


def read_scorable(path: str | Path, tokens: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sample token -> its records, not yet checked, and "meta" of a results file.

    Args:
        path: the file.
        tokens: of the samples that are evaluated; the file must have each, and no other.

    Raises:
        MissingFileError: no such file.
        InputError: it is no results file, has no "meta", or has other samples.
    """
    results, meta = read_submission(path)
    where = f"{path} cannot be scored: "
    if not isinstance(meta, dict):
        raise InputError(
            f'{where}it has no "meta"; add one, {{"use_camera": true, ...}}, as nuScenes asks for'
        )
    check_file_samples(results, tokens, where)
    return results, meta
