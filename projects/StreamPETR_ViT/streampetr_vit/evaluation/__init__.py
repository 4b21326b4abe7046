"""Results in the nuScenes format, and the official metrics."""

from streampetr_vit.evaluation.devkit_metrics import evaluate_results
from streampetr_vit.evaluation.devkit_tracking import evaluate_tracks
from streampetr_vit.evaluation.nuscenes_evaluator import NuScenesEvaluator
from streampetr_vit.evaluation.nuscenes_tracking_evaluator import NuScenesTrackingEvaluator

__all__ = [
    "NuScenesEvaluator",
    "NuScenesTrackingEvaluator",
    "evaluate_results",
    "evaluate_tracks",
]
