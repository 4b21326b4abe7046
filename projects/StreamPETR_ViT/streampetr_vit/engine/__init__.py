"""Training and evaluation on detectron2's engine: precision, distribution, hooks, command flow."""

from streampetr_vit.engine.building import build_model
from streampetr_vit.engine.config import ConfigError, instantiate_model, load_config, load_spec
from streampetr_vit.engine.distributed import reduce_mean, resolve_device
from streampetr_vit.engine.evaluation import evaluate, evaluate_only
from streampetr_vit.engine.exported import evaluate_exported
from streampetr_vit.engine.param_table import param_group_table
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.run_folder import setup
from streampetr_vit.engine.train_loop import train
from streampetr_vit.engine.trainer import NonFiniteTrainingError, StreamingTrainer

__all__ = [
    "ConfigError",
    "NonFiniteTrainingError",
    "StreamingTrainer",
    "build_model",
    "evaluate",
    "evaluate_exported",
    "evaluate_only",
    "instantiate_model",
    "launch",
    "load_config",
    "load_spec",
    "param_group_table",
    "reduce_mean",
    "resolve_device",
    "setup",
    "train",
]
