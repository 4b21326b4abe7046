"""Which samples are evaluated, and where their ground truth is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import DatasetSpec


@dataclass(frozen=True)
class EvaluationSet:
    """The samples of one evaluation.

    Attributes:
        root: folder that holds the version folder.
        version: table folder, such as "v1.0-trainval".
        sample_tokens: the samples, each once, in the order of the loader.
        has_annotations: False where only a results file can be written (the test split).
        spec: classes and cameras of the data set.
    """

    root: Path
    version: str
    sample_tokens: tuple[str, ...]
    has_annotations: bool
    spec: DatasetSpec = NUSCENES

    @staticmethod
    def of(dataset: str | Mapping[str, Any], spec: DatasetSpec = NUSCENES) -> EvaluationSet:
        """The samples that a test loader of the same data set delivers.

        Args:
            dataset: a catalog name such as "nuscenes_trainval_val", or a description, see
                `catalog.dataset_name`.
            spec: of the data set.
        """
        # Opened as the test loader opens it: the same samples in the same order.
        records = open_dataset(dataset, spec)
        tokens = tuple(records.tokens)
        return EvaluationSet(records.root, records.version, tokens, records.has_annotations, spec)
