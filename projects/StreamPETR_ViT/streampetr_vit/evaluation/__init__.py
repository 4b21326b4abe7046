"""Results in the nuScenes format, and the official metrics."""

from streampetr_vit.evaluation.devkit_metrics import evaluate_results
from streampetr_vit.evaluation.nuscenes_evaluator import NuScenesEvaluator

__all__ = ["NuScenesEvaluator", "evaluate_results"]
