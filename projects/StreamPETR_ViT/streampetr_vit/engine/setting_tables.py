"""What the settings of a configuration may be; `engine.settings` checks them."""

from __future__ import annotations

from collections.abc import Mapping

from streampetr_vit.engine.allowed import (
    ABOVE_0,
    DESCRIBED,
    FACTOR,
    FLAG,
    NOT_NEGATIVE,
    SECTION,
    SHARE,
    TEXT,
    Allowed,
    list_of,
    matching,
    null,
    number,
    one_of,
    whole,
)
from streampetr_vit.engine.compile import MODES
from streampetr_vit.modeling.ops.precision import DTYPES

MOST_ITERS = 2**31 - 1  # the writers of curves take no more
_PRECISION = one_of(*DTYPES)
_NOT_EMPTY = r"(?s).*\S.*"
_NAME = matching(_NOT_EMPTY, "a text that is not empty")
_FROZEN = Allowed(
    "{parts:...}, the start of names of parameters, and beside it iters:N for the first N steps",
    lambda value: (
        isinstance(value, Mapping)
        and set(value) <= {"parts", "iters"}
        and _NAME.holds(value.get("parts"))
        and (whole(1) | null("")).holds(value.get("iters"))
    ),
)
# Settings of the plain sections, and what every configuration has.
SETTINGS: dict[str, Allowed] = {
    "model": DESCRIBED,
    "dataset_spec": DESCRIBED,
    "optimizer": DESCRIBED,
    "optimizer.params": DESCRIBED,
    "optimizer.lr": NOT_NEGATIVE,  # 0 trains nothing, as when one looks for a fault
    "dataloader": SECTION,
    "dataloader.train": DESCRIBED,
    "dataloader.test": DESCRIBED,
    "dataloader.evaluator": DESCRIBED | list_of(DESCRIBED) | null("no evaluation"),
    "dataloader.train.lanes_per_rank": whole(1),
    "schedule": SECTION,
    "schedule.epochs": ABOVE_0,
    "schedule.warmup_iters": whole(0),
    "schedule.warmup_factor": SHARE,
    "schedule.end_factor": SHARE,
    "schedule.lr_batch": whole(1) | null("a rate that is not scaled"),
    "train": SECTION,
    "train.output_dir": matching(_NOT_EMPTY, "the name of a folder"),
    "train.init_checkpoint": Allowed('a file, or "" for random weights', (TEXT | null("")).holds),
    "train.init_weights": one_of("model", "ema"),
    "train.init_allow_wrong_shape": FLAG,
    "train.init_allow_partial": FLAG,
    "train.device": matching(r"auto|cpu|cuda(:\d+)?", '"auto", "cpu", "cuda" or "cuda:N"'),
    "train.precision": _PRECISION,
    "train.eval_precision": _PRECISION,
    "train.max_iter": whole(1, MOST_ITERS) | null("as many as schedule.epochs asks for"),
    "train.auto_scale": FLAG,
    "train.max_seconds": ABOVE_0 | null("no limit"),
    "train.clip_grad_norm": ABOVE_0 | null("no clipping"),
    "train.max_consecutive_skips": whole(1),
    "train.checkpointer": SECTION,
    "train.checkpointer.period": whole(1) | null("one epoch"),
    "train.checkpointer.max_to_keep": whole(1) | null("all"),
    "train.checkpointer.background": FLAG,
    "train.accumulate": whole(1),
    "train.restart_streams": FLAG,
    "train.best_checkpoint": SECTION | null("none"),
    "train.best_checkpoint.metric": _NAME,
    "train.best_checkpoint.mode": one_of("max", "min"),
    "train.freeze": list_of(_FROZEN),
    "train.hooks": list_of(DESCRIBED),
    "train.ema": SECTION | null("no average"),
    "train.ema.decay": number("from 0 to below 1", lambda value: 0 <= value < 1),
    "train.ema.warmup_iters": whole(0),
    "train.ema.start_iter": whole(0),
    "train.eval_period": whole(0),
    "train.log_period": whole(1),
    "train.seed": whole(0, 2**32 - 1),
    "train.num_threads": whole(1, 1024) | null("torch's choice"),
    "train.compile": SECTION | null("none"),
    "train.compile.backbone": FLAG,
    "train.compile.decoder": FLAG,
    "train.compile.mode": one_of(*MODES),
    "train.ddp": SECTION,
    "train.ddp.broadcast_buffers": FLAG,
    "train.ddp.find_unused_parameters": FLAG,
    "report": SECTION | null("no report"),
    "report.title": TEXT,
    "report.notes": list_of(TEXT),
    "report.memory_off": FLAG,
    "report.range_m": ABOVE_0,
    "synthetic": SECTION,
    "synthetic.preset": TEXT,
}
_DATASET = {
    "root": _NAME,
    "version": _NAME,
    "split": TEXT | list_of(TEXT) | null("all scenes"),
    "name": TEXT | null("one that is made up"),
    "cache_dir": TEXT | null("a folder in the data set"),
}
_LOADERS = ("dataloader.train", "dataloader.test", "dataloader.evaluator")
SETTINGS |= {f"{at}.dataset.{key}": rule for at in _LOADERS for key, rule in _DATASET.items()}
# May be left out: the files of older runs lack them, or they have a default.
OPTIONAL = {
    *("dataset_spec", "dataloader.evaluator", "optimizer.lr", "report", "synthetic"),
    *("schedule.lr_batch", "train.auto_scale", "train.init_allow_partial", "train.compile"),
    *("train.accumulate", "train.restart_streams", "train.checkpointer.background"),
    *("train.best_checkpoint", "train.best_checkpoint.mode", "train.freeze", "train.hooks"),
    *("train.init_weights", "train.ema", "train.ema.decay"),
    *("train.ema.warmup_iters", "train.ema.start_iter"),
    *("train.compile.backbone", "train.compile.decoder", "train.compile.mode"),
    *("train.ddp.broadcast_buffers", "train.ddp.find_unused_parameters"),
    *(f"{loader}.dataset.{key}" for loader in _LOADERS for key in ("split", "name", "cache_dir")),
}
# Arguments of this package's classes and functions, by name, beyond their types.
_COUNT = whole(1)
_BOX = Allowed(
    "six numbers in brackets, x, y, z of the lowest corner and then of the highest",
    lambda value: (
        list_of(number(), 6).holds(value)
        and all(low < high for low, high in zip(value[:3], value[3:], strict=True))
    ),
)
ARGUMENTS: dict[str, Allowed] = {
    **dict.fromkeys(("img_size", "patch_size", "in_chans", "embed_dim", "depth"), _COUNT),
    **dict.fromkeys(("num_heads", "num_layers", "num_levels", "num_points"), _COUNT),
    **dict.fromkeys(("num_groups", "num_classes", "num_queries", "in_channels"), _COUNT),
    **dict.fromkeys(("out_channels", "feedforward_dim", "depth_num", "stride"), _COUNT),
    **dict.fromkeys(("pretrain_img_size", "size_divisibility", "max_detections"), _COUNT),
    **dict.fromkeys(("lanes_per_rank", "sequence_split", "sequence_length"), _COUNT),
    **dict.fromkeys(("window_length", "prefetch_factor"), _COUNT),
    **dict.fromkeys(("num_propagated", "memory_length", "num_remembered", "groups"), whole(0)),
    "num_workers": whole(0, 256),  # each is a process: thousands bring a machine to a stop
    **dict.fromkeys(("window_drop", "square_pad", "window_size"), whole(0)),
    **dict.fromkeys(("seed", "start_iteration", "global_window_size"), whole(0)),
    **dict.fromkeys(("dropout", "feedforward_dropout", "flip_probability"), SHARE),
    **dict.fromkeys(("probability", "score_threshold"), SHARE),
    **dict.fromkeys(("class_weight", "box_weight", "giou_weight", "center_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("iou_weight", "centerness_weight", "yawness_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("translation_m", "depth_start_m", "prior_sigma_cells"), NOT_NEGATIVE),
    "weight_decay": NOT_NEGATIVE,
    **dict.fromkeys(("backbone_lr_factor", "head_factor", "pyramid_factor", "scale"), NOT_NEGATIVE),
    **dict.fromkeys(("mlp_ratio", "gain", "max_positive_distance"), ABOVE_0),
    "decay_rate": FACTOR,
    "cross_attention_precision": one_of(*DTYPES),
    "sampling_kernel": one_of("grid_sample", "gather"),
    "norm": one_of("", "LN", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN"),
    "half_scale": one_of("conv", "max_pool"),
    "input_format": one_of("RGB", "BGR"),
    "on_bad_image": one_of("raise", "count"),
    "sharding": one_of("scene", "reference"),
    **dict.fromkeys(("point_cloud_range", "center_range", "position_range"), _BOX),
    "strides": list_of(_COUNT),
    "symmetric_labels": list_of(whole(0)),
    "scale_factors": list_of(ABOVE_0),
    "code_weights": list_of(NOT_NEGATIVE, 10),
    "pixel_mean": list_of(number(), 3),
    "pixel_std": list_of(ABOVE_0, 3),
}
