"""Names of earlier versions, for recipes and saved configurations that still use them."""

from __future__ import annotations

import inspect
import re
from typing import Any

from omegaconf import DictConfig, ListConfig

_PACKAGE = "streampetr_vit."
# Module of an earlier version -> where its classes are now.
_MODULES = {
    "data.nuscenes_tables": "data.nuscenes.build_records",
    "data.table_columns": "data.nuscenes.columns",
    "data.table_reader": "data.nuscenes.tables",
    "data.frame_records": "data.nuscenes.records",
    "data.record_cache": "data.nuscenes.cache",
    "engine.described": "configuration.described",
    "evaluation.report": "report.page",
    "evaluation.report_from_run": "report.from_run",
    "evaluation.report_pictures": "report.page",
    "evaluation.report_tables": "report.tables",
    "evaluation.svg_charts": "report.charts",
    "evaluation.training_curves": "report.curves",
    "modeling.criterion.image_criterion": "modeling.criterion.training_loss",
    "modeling.key_report": "checkpoint.fit",
    "modeling.grid_mask": "modeling.image.grid_mask",
    "modeling.queries": "modeling.heads.outputs",
    "modeling.temporal.camera_sampling": "modeling.decoder.camera_sampling",
    "modeling.temporal.position_encoding": "modeling.image.position_encoder",
    "modeling.temporal.rig_code": "modeling.image.rig_code",
    "modeling.temporal.transformer": "modeling.decoder.decoder",
    "structures.boxes2d": "structures.sample",
    "structures.camera_rig": "structures.frame",
}
# Class that configurations name as `model` -> the class that detectron2's own loops can call.
_CLASSES = {"modeling.detector.StreamPETR": "inference.bare_model.BareStreamPETR"}
# What of a module, or of a name in it, went elsewhere -> where, in words.
_ELSEWHERE = {
    "data.synthetic": "the package synthetic_nuscenes has the synthetic data set",
    "data.build.open_dataset": "open_dataset is in streampetr_vit.data.nuscenes.catalog",
    "engine.streaming": "streampetr_vit.inference.Stream stands for StreamingStep",
    "modeling.queries": "streampetr_vit.modeling.heads.outputs has the outputs of the heads, "
    "heads.denoising_queries DenoisingQueries",
    "structures.CLASS_NAMES": "streampetr_vit.data.nuscenes.spec.NUSCENES.class_names has them",
    "structures.CAMERA_NAMES": "streampetr_vit.data.nuscenes.spec.NUSCENES.cameras has them",
    "structures.CONVERTER_CLASS_NAMES": "it is in streampetr_vit.data.nuscenes.spec",
}
# Key of an earlier version -> what to set instead.
KEYS = {
    "dataloader.train.mapper.class_names": "dataset_spec.classes",
    "dataloader.test.mapper.class_names": "dataset_spec.classes",
}


def new_name(name: str) -> str | None:
    """The present name of a module or class, dotted as in an import; None if it was not moved."""
    if not name.startswith(_PACKAGE):
        return None
    name = name.removeprefix(_PACKAGE)
    moved = (_CLASSES | _MODULES).get(name)
    if moved is not None:
        return _PACKAGE + moved
    module, _, rest = name.rpartition(".")
    return f"{_PACKAGE}{_MODULES[module]}.{rest}" if module in _MODULES else None


def where_now(error: ImportError) -> str | None:
    """A sentence on what an import of an earlier version must become; None if it is none."""
    name = error.name or ""
    absent = re.search(r"cannot import name '(\w+)'", str(error))
    full = f"{name}.{absent[1]}" if absent else name
    elsewhere = _ELSEWHERE.get(full.removeprefix(_PACKAGE))
    moved = new_name(full)
    if elsewhere is None and moved is not None:
        elsewhere = f"it is now {moved}"
    return None if elsewhere is None else f"there is no {full} any more: {elsewhere}"


def rename_targets(node: Any) -> None:
    """Gives every `_target_` of a configuration its present name, in place."""
    if isinstance(node, DictConfig):
        entry = node._get_node("_target_")  # as it stands: it may be an interpolation
        target = None if entry is None else entry._value()
        if inspect.isclass(target):  # in a recipe; in YAML it is a name
            target = f"{target.__module__}.{target.__qualname__}"
        if isinstance(target, str) and (renamed := new_name(target)):
            node["_target_"] = renamed
    if isinstance(node, (DictConfig, ListConfig)):
        # Not .values(): that resolves interpolations, which may lead nowhere before overrides.
        for key in node if isinstance(node, DictConfig) else range(len(node)):
            rename_targets(node._get_node(key))
