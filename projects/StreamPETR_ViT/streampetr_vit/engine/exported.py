"""Evaluation of exported graphs, in place of the model that they were exported from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from streampetr_vit.engine.agreement import on_all_ranks, on_rank_0
from streampetr_vit.engine.distributed import resolve_device
from streampetr_vit.engine.evaluation import Metrics, evaluate_and_report
from streampetr_vit.engine.preflight import check_evaluation
from streampetr_vit.engine.run_folder import evaluation_folder, save_config, with_output_dir
from streampetr_vit.engine.signals import SignalWatch
from streampetr_vit.export.runner import OnnxDetector
from streampetr_vit.inference.exported import check_recipe, check_same, load_exported
from streampetr_vit.inference.recipe_parts import image_aug_of, spec_of

logger = logging.getLogger(__name__)

_RECIPE = "the configuration"


def evaluate_exported(cfg: DictConfig, folder: str, trusted: Sequence[str] = ()) -> Metrics:
    """Evaluates exported graphs with the data, evaluators and report of a configuration.

    Where train.output_dir holds a training, everything is written into its folder `evaluation`.

    Args:
        cfg: the whole configuration. With train.device=cuda the graphs run on the GPU, else on the
            CPU.
        folder: that tools/export_onnx.py has written.
        trusted: packages that its config.yaml may call beside those that recipes use.

    Raises:
        UserError: the graphs cannot be opened, are for other classes, cameras or pictures; or what
            `check_evaluation` finds.
    """
    with SignalWatch():  # a signal ends an evaluation at once
        device = _device(cfg)
        opened = on_all_ranks(lambda: load_exported(folder, device=device, trusted=trusted))
        detector = opened.detector
        assert isinstance(detector, OnnxDetector)
        said = detector.description
        check_recipe(said, spec_of(cfg), image_aug_of(cfg), _RECIPE)
        _check_head(cfg, detector)
        logger.info(
            "evaluating the graphs of %s: %s, %s, weights %s with SHA-256 %s",
            folder,
            said.recipe,
            said.precision,
            said.weights,
            said.weights_sha256,
        )
        cfg = with_output_dir(cfg, on_rank_0(lambda: evaluation_folder(cfg)))
        cfg.train.init_checkpoint = folder  # so that config.yaml says what was evaluated
        check_evaluation(cfg, detector)
        on_rank_0(lambda: save_config(cfg, cfg.train.output_dir))
        return evaluate_and_report(cfg, detector)


def _check_head(cfg: DictConfig, detector: OnnxDetector) -> None:
    """Refuses the recipe of another detector, and names settings of it that the graphs fix."""
    head, said = cfg.model.get("head"), detector.description
    if not isinstance(head, DictConfig) or "_target_" not in head:
        return  # what stands for the detector in the configuration does not say it
    target = head["_target_"]
    name = target.rpartition(".")[2] if isinstance(target, str) else target.__name__
    check_same("detector", [said.detector], [name], _RECIPE)
    fixed = {"memory_length": detector.memory_length} | {
        key: getattr(said, key)
        for key in ("max_detections", "num_queries", "num_remembered", "score_threshold")
    }
    for key, exported in fixed.items():
        if key in head and head[key] != exported:
            logger.warning(
                "model.head.%s=%s has no effect: the graphs were exported with %s",
                key,
                head[key],
                exported,
            )


def _device(cfg: DictConfig) -> str:
    """What onnxruntime shall compute on: "auto" does not mean that its build has CUDA."""
    name = str(cfg.train.device)
    return f"cuda:{resolve_device(name).index}" if name.startswith("cuda") else "cpu"
