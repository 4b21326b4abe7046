"""Evaluation of a model, on the way of a training or alone, and the report that follows it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.checkpoint.formats import AVERAGE
from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.checkpoint.manifest import ON_PURPOSE, damage
from streampetr_vit.engine.agreement import on_all_ranks, on_rank_0
from streampetr_vit.engine.building import build_average, build_model
from streampetr_vit.engine.config import call
from streampetr_vit.engine.evaluators import (
    build_evaluators,
    evaluator_parts,
    main_part,
    results_folder,
    stream_tracker,
    tracking_folders,
)
from streampetr_vit.engine.preflight import check_evaluation
from streampetr_vit.engine.resume import last_checkpoint
from streampetr_vit.engine.run_folder import (
    command_for,
    evaluation_folder,
    save_config,
    with_output_dir,
)
from streampetr_vit.engine.signals import SignalWatch
from streampetr_vit.export.runner import OnnxDetector
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast
from streampetr_vit.modeling.training_window import evaluation_mode
from streampetr_vit.report.from_run import AVERAGED, MEMORY_OFF, MEMORY_ON, report_from_run
from streampetr_vit.report.page import write_report
from streampetr_vit.solver import WeightAverage
from streampetr_vit.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

Metrics = dict[str, Any]


def evaluate(
    cfg: DictConfig,
    model: nn.Module | OnnxDetector,
    output_dir: str | None = None,
    memory: bool | None = None,
    main_only: bool = False,
) -> Metrics:
    """Runs the test set through a model and returns the evaluators' metrics.

    Args:
        cfg: the whole configuration.
        model: with its weights, not wrapped for distribution. A `StreamPETR`, or what was exported
            of one, runs in a new `Stream`; any other model is called with batches, as detectron2
            does.
        output_dir: folder for the results; None for those that the evaluators have.
        memory: False turns the temporal memory off: every frame is a stream of its own. None does
            as model.memory_at_test says.
        main_only: leave out all evaluators but that of `main_part`.

    Returns:
        {task: {metric: value}} on rank 0, empty on other ranks.
    """
    parts = evaluator_parts(cfg)
    if not parts:
        logger.warning("the configuration has no dataloader.evaluator: nothing is evaluated")
        return {}
    loader = call(cfg.dataloader.test, rank=comm.get_rank(), world_size=comm.get_world_size())
    evaluators = build_evaluators([main_part(cfg)] if main_only else parts, output_dir)
    if memory is None:
        memory = _remembers(cfg)
    with evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext():
        run = _inference(model, cfg.train.eval_precision, memory, stream_tracker(evaluators))
        results = inference_on_dataset(run, loader, evaluators)
    if comm.is_main_process() and results:
        print_csv_format(results)
    return results or {}


def _remembers(cfg: DictConfig) -> bool:
    """Whether the configuration evaluates with the temporal memory; other models have no key."""
    return cfg.model.get("memory_at_test", True)


def _inference(
    model: nn.Module | OnnxDetector, precision: str, memory: bool, tracker: Tracker | None
) -> Callable[[Any], Any]:
    """The function that detectron2's evaluation loop calls with each batch."""
    # Autocast is set here and not around the loop: with num_workers=0 the loader prepares samples
    # in this process, and they must stay float32.
    if isinstance(model, (StreamPETR, OnnxDetector)):
        if isinstance(model, OnnxDetector):
            precision = "float32"  # of what is around the graphs, which compute as exported
        stream = Stream(model, precision, memory=memory, tracker=tracker)
        if tracker is None:
            return lambda batch: [{"detections": found} for found in stream(batch)]

        def run_with_ids(batch: Any) -> Any:
            found = stream(batch)
            pairs = zip(found, stream.tracks, strict=True)
            return [{"detections": detections, "tracks": tracks} for detections, tracks in pairs]

        return run_with_ids
    device_type = next(model.parameters()).device.type

    def run(batch: Any) -> Any:
        with autocast(precision, device_type):
            return model(batch)

    return run


def evaluate_and_report(
    cfg: DictConfig, model: nn.Module | OnnxDetector, average: WeightAverage | None = None
) -> Metrics:
    """Evaluates as `evaluate` does, and writes report.html if the configuration has a report.

    With an average of the weights, the test set runs once more with it. Its metrics are beside the
    others, under the task's name and "_ema".

    With report.memory_off the test set runs again for comparison, with the weights and without the
    temporal memory. These metrics are not returned. A report that cannot be made is an
    error in the log and no more.
    """
    memory = _remembers(cfg)
    results = evaluate(cfg, model, memory=memory)
    other_runs: dict[str, Path] = {}
    if average is not None:
        # A folder of its own, as below: the evaluator would overwrite the other results.
        other_runs[AVERAGED] = Path(cfg.train.output_dir, "inference_ema")
        logger.info("evaluating the average of the weights")
        with average.swapped():
            found = evaluate(cfg, model, str(other_runs[AVERAGED]), memory=memory)
        results |= {f"{task}_{AVERAGE}": metrics for task, metrics in found.items()}
    if cfg.get("report") is None:
        return results
    if cfg.report.memory_off and memory:
        folder = os.path.join(cfg.train.output_dir, "inference_memory_off")
        try:
            evaluate(cfg, model, folder, memory=False, main_only=True)
        except Exception as error:
            if comm.get_world_size() > 1:  # the others may still be in the middle of it
                raise
            return _without_report(cfg, results, error)
        other_runs[MEMORY_OFF] = Path(folder)
    if comm.is_main_process() and results:
        try:
            _write_report(cfg, MEMORY_ON if memory else MEMORY_OFF, other_runs)
        except Exception as error:
            return _without_report(cfg, results, error)
    return results


def _write_report(cfg: DictConfig, main_run: str, other_runs: dict[str, Path]) -> None:
    report = report_from_run(
        cfg.train.output_dir,
        cfg.dataloader.test.dataset,
        cfg.report.title,
        inference=results_folder(cfg),
        spec=call(cfg.dataset_spec),
        notes=[*cfg.report.notes, *_differences_from_published(cfg)],
        main_run=main_run,
        other_runs=other_runs,
        tracking=tracking_folders(cfg),
        range_m=cfg.report.range_m,
    )
    logger.info("wrote %s", write_report(cfg.train.output_dir, report))


def _without_report(cfg: DictConfig, results: Metrics, error: Exception) -> Metrics:
    """Logs why there is no report, and how to make one."""
    logger.error(
        "no report was made (%s: %s). The metrics above are complete, their files are in %s. To "
        "make it later: %s; or report_from_run in Python (docs/evaluate.md)",
        type(error).__name__,
        str(error).partition("\n")[0],
        results_folder(cfg),
        command_for(cfg, "--eval-only", "--resume"),
    )
    return results


def _differences_from_published(cfg: DictConfig) -> list[str]:
    """What in the configuration is not the published model, so that no report hides it."""
    sigma = cfg.model.head.get("prior_sigma_cells")
    if not sigma:
        return []
    return [
        f"A geometric prior is on (model.head.prior_sigma_cells={sigma:g}): every query looks "
        "first where its reference point projects. It is not part of the published model."
    ]


def evaluate_only(cfg: DictConfig, resume: bool = False) -> Metrics:
    """Evaluates the weights of train.init_checkpoint; with train.ema their average as well.

    Where train.output_dir holds a training, everything is written into its folder `evaluation`.

    Args:
        cfg: the whole configuration.
        resume: evaluate the last checkpoint of train.output_dir instead, if there is one.

    Raises:
        CheckpointError: no checkpoint, or one that is not a whole detector.
        UserError: what `check_evaluation` finds.
    """
    with SignalWatch():  # a signal ends an evaluation at once
        model = build_model(cfg)
        # require_all: a backbone file would load, and its random head would give mAP 0.
        weights = cfg.train.get("init_weights", "model")  # an older config.yaml lacks it
        # Beside the average itself there is nothing to compare with it.
        average = build_average(cfg, model) if weights == "model" else None
        checkpointer = SafeCheckpointer(
            model,
            cfg.train.output_dir,
            require_all=True,
            weights=weights,
            **({} if average is None else {AVERAGE: average}),
        )
        path = on_rank_0(lambda: _weights(cfg, checkpointer, resume))
        cfg = with_output_dir(cfg, on_rank_0(lambda: evaluation_folder(cfg)))
        cfg.train.init_checkpoint = path  # so that config.yaml says what was evaluated
        check_evaluation(cfg, model)
        on_all_ranks(lambda: checkpointer.load(path))
        on_rank_0(lambda: save_config(cfg, cfg.train.output_dir))
        if average is not None and not average.is_loaded:
            logger.warning("%s has no average of the weights (ema): there is no row of it", path)
            average = None
        return evaluate_and_report(cfg, model, average)


def _weights(cfg: DictConfig, checkpointer: SafeCheckpointer, resume: bool) -> str:
    """The file that an evaluation alone takes."""
    to_resume = resume and checkpointer.has_checkpoint()
    path = last_checkpoint(checkpointer) if to_resume else cfg.train.init_checkpoint
    if resume and not to_resume and path:
        logger.warning(
            "%s has no last_checkpoint: train.init_checkpoint=%s is evaluated",
            cfg.train.output_dir,
            path,
        )
    if not path:
        raise CheckpointError(
            "--eval-only has no weights: train.init_checkpoint is empty, and there is no last "
            f"checkpoint to take. Pass train.init_checkpoint=FILE; or pass --resume, with a run's "
            f"folder as train.output_dir (now {cfg.train.output_dir!r})"
        )
    reason = damage(path) if os.path.isfile(path) else None
    if reason is not None:  # torch reads altered numbers without an error
        raise CheckpointError(
            f"{path} is damaged: {reason}. Evaluate another one with train.init_checkpoint=FILE. "
            f"{ON_PURPOSE}"
        )
    return path
