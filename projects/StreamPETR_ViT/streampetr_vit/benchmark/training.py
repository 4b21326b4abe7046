"""What the trainer's step consists of, in time and in memory; and the pace of its loader."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from streampetr_vit.benchmark import measuring
from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_batch
from streampetr_vit.benchmark.session import Session
from streampetr_vit.data.batch import Batch
from streampetr_vit.data.build import default_workers
from streampetr_vit.engine.compile import check_checkpointing
from streampetr_vit.engine.config import call
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.engine.trainer import StreamingTrainer

# Name of a policy -> what `ViT.use_act_checkpoint` is set to.
POLICIES: dict[str, bool | str] = {"off": False, "block": True, "selective": "selective"}


def measure_training(
    session: Session, *, batch: int, policies: Sequence[str], from_data: bool
) -> measuring.Tables:
    """Times training steps and their peak memory under each checkpointing policy.

    Args:
        session: what to measure, and how often.
        batch: streams.
        policies: of `POLICIES`. One that fails (not enough memory, say) is a row with its error.
        from_data: batches of dataloader.train instead of a made-up one.
    """
    tables: measuring.Tables = {"matrix peak": session.peak_rows, "step": []}
    cfg, model, watch = session.cfg, session.build(), measuring.Stopwatch(session.device)
    watch.attach(model.head, after="forward")  # what follows its last call is matching and losses
    made_up = made_up_batch(cfg, session.image_size, batch)
    if session.device.type == "cuda":
        made_up = made_up.pin_memory()  # as the loader does
    trainer = StreamingTrainer(
        training_module(model),
        build_optimizer(cfg.optimizer, model),
        _steady_batches(session, lanes=batch) if from_data else repeat(made_up),
        precision=session.precision,
        clip_grad_norm=cfg.train.clip_grad_norm,
    )
    # Backward is twice forward; what a policy computes anew is no useful work.
    tflop = 3 * frame_tflop(cfg, session.image_size, batch=batch)["frame"]

    def step_row(policy: str, laps: list[dict[str, float]]) -> measuring.Row:
        vit: Any = model.backbone.net
        vit.use_act_checkpoint = POLICIES[policy]
        model.head.decoder.use_act_checkpoint = policy != "off"
        if (cfg.train.get("compile") or {}).get("backbone", False):
            check_checkpointing(vit)
        for _ in range(max(session.warmup, 1)):  # the first one gives the optimiser its state
            _step_laps(trainer, watch)
        memory = measuring.PeakMemory(session.device)
        laps += [_step_laps(trainer, watch) for _ in range(session.repeats)]
        seconds = [sum(step.values()) for step in laps]
        times = measuring.time_row(seconds, tflop, session.peak_tflops)
        return {**times, "peak_memory_gib": memory.gib()}

    for policy in policies:
        # It begins without the leftovers of a step that ran out of memory, say.
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.memory, laps = None, list[dict[str, float]]()
        row = measuring.row_or_error(partial(step_row, policy, laps))
        tables["step"].append({"checkpointing": policy, **row})
        if laps:
            tables[f"stages, {policy}"] = measuring.stage_rows(laps, {}, 0.0)
    return tables


def _step_laps(trainer: StreamingTrainer, watch: measuring.Stopwatch) -> dict[str, float]:
    """Takes the trainer's next step; the seconds of its stages."""
    # The parts of StreamingTrainer.run_step, in its order.
    watch.start()
    batch = trainer.next_batch()
    watch.lap("data")
    losses = trainer.forward(batch)
    watch.lap("losses")
    trainer.backward(losses)
    grad_norm = trainer.clip()
    watch.lap("backward")
    trainer.update(losses, grad_norm)
    watch.lap("optimizer")
    return watch.seconds()


def measure_loading(session: Session, *, workers: Sequence[int], frames: int) -> measuring.Tables:
    """Times the training loader of a recipe on its data set.

    Args:
        session: whose dataloader.train.
        workers: numbers of loading processes; 0 loads in this one.
        frames: that are timed for each.
    """
    tables: measuring.Tables = {"loader": []}
    for count in workers:
        batches, images, samples = _steady_batches(session, count), 0, 0
        start, cpu_start = time.perf_counter(), time.process_time()
        while samples < frames:
            for sample in next(batches).samples():
                images, samples = images + len(sample.images), samples + 1
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        row = {
            "workers": count,
            "images_per_s": images / seconds,
            "frames_per_s": samples / seconds,
            "ms_per_frame": 1e3 * seconds / samples,
            "cpu_ms_per_frame": 1e3 * cpu_seconds / samples,  # of this process alone
            "cache_images": bool(session.cfg.dataloader.train.mapper.get("cache_images")),
        }
        tables["loader"].append(row)
    return tables


def _steady_batches(
    session: Session, workers: int | None = None, lanes: int | None = None
) -> Iterator[Batch]:
    """Batches of dataloader.train; processes and streams are the recipe's where None is given."""
    settings = session.cfg.dataloader.train
    lanes = settings.lanes_per_rank if lanes is None else lanes
    workers = settings.num_workers if workers is None else workers
    workers = default_workers() if workers is None else workers
    batches = iter(call(settings, num_workers=workers, lanes_per_rank=lanes, rank=0, world_size=1))
    # What the workers have made ahead before anyone waits says nothing about their pace.
    for _ in range(1 + workers * settings.get("prefetch_factor", 2)):
        next(batches)
    return batches
