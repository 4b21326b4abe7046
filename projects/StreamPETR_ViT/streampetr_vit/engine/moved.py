"""Names of earlier versions, for recipes and saved configurations that still use them."""

from __future__ import annotations

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
    "engine.streaming": "inference",
    "evaluation.report": "report.page",
    "evaluation.report_from_run": "report.from_run",
    "modeling.criterion.image_criterion": "modeling.criterion.training_loss",
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


def rename_targets(node: Any) -> None:
    """Gives every `_target_` of a configuration its present name, in place."""
    if isinstance(node, DictConfig):
        target = node.get("_target_")
        # A target is a name in YAML, and the class itself in a recipe.
        if isinstance(target, str) and (renamed := new_name(target)):
            node["_target_"] = renamed
    if isinstance(node, (DictConfig, ListConfig)):
        # Not .values(): that resolves interpolations, which may lead nowhere before overrides.
        for key in node if isinstance(node, DictConfig) else range(len(node)):
            rename_targets(node._get_node(key))
