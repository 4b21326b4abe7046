"""What the trainer's step consists of, in time and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_batch
from streampetr_vit.benchmark.result import Result, Row, first_line
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.timing import PeakMemory, Stopwatch, median, time_row
from streampetr_vit.data.build import default_workers
from streampetr_vit.engine.compile import check_checkpointing
from streampetr_vit.engine.config import call
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR

PARTS = ("data", "forward", "backward", "optimizer")
# Name of a policy -> what `ViT.use_act_checkpoint` is set to.
POLICIES: dict[str, bool | str] = {"off": False, "block": True, "selective": "selective"}


def step_laps(trainer: StreamingTrainer, watch: Stopwatch) -> dict[str, float]:
    """Takes the trainer's next step; the seconds of each of `PARTS`."""
    # The parts of StreamingTrainer.run_step, in its order.
    watch.start()
    batch = trainer.next_batch()
    watch.lap("data")
    losses = trainer.forward(batch)
    watch.lap("forward")
    grad_norm = trainer.backward(losses)
    watch.lap("backward")
    trainer.update(losses, grad_norm)
    watch.lap("optimizer")
    return watch.seconds()


def measure_training(
    session: Session,
    *,
    batch: int = 1,
    policies: Sequence[str] = tuple(POLICIES),
    from_data: bool = False,
) -> Result:
    """Times training steps and their peak memory under each checkpointing policy.

    Args:
        session: what to measure, and how often.
        batch: streams.
        policies: of `POLICIES`. One that fails (not enough memory, say) is a row with its error.
        from_data: batches of dataloader.train instead of a made-up one.

    Raises:
        InputError: unknown policy.
    """
    unknown = [policy for policy in policies if policy not in POLICIES]
    if unknown:
        raise InputError(f"--checkpointing {unknown[0]!r} is unknown; use {', '.join(POLICIES)}")
    cfg, peak_rows, model = session.cfg, session.peak_rows, session.build()
    trainer = StreamingTrainer(
        training_module(model),
        build_optimizer(cfg.optimizer, model),
        _batches(session, batch, from_data),
        precision=session.precision,
        clip_grad_norm=cfg.train.clip_grad_norm,
    )
    if from_data:
        # What the workers have made ahead by now says nothing about their pace.
        settings = cfg.dataloader.train
        workers = default_workers() if settings.num_workers is None else settings.num_workers
        for _ in range(workers * settings.get("prefetch_factor", 2)):
            trainer.next_batch()
    # Backward is twice forward; what a policy computes anew is no useful work.
    tflop = 3 * frame_tflop(cfg, session.image_size, batch=batch)["frame"]
    height, width = session.image_size
    result = session.result("train", input=f"{width}x{height}", batch=batch, data=from_data)
    names = ("step", "milliseconds of a step, p50", "shares of all steps")
    result.tables |= {"matrix peak": peak_rows, **{name: [] for name in names}}
    for policy in policies:
        try:
            _set_policy(session, model, policy)
            rows = _policy_rows(session, trainer, tflop)
        except (RuntimeError, ValueError, TypeError) as error:
            rows = [{"error": first_line(error)}]
            # The next policy begins without the leftovers of a step that ran out of memory, say.
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.memory = None
        for name, row in zip(names, rows, strict=False):
            result.tables[name].append({"checkpointing": policy, **row})
    result.notes.append(
        "tflop: three times the forward pass of one frame of every stream, without denoising "
        "queries, 2D head and recomputation."
    )
    return result


def _batches(session: Session, batch: int, from_data: bool) -> Iterator[Any]:
    if from_data:
        settings = session.cfg.dataloader.train
        yield from call(settings, lanes_per_rank=batch, rank=0, world_size=1)
    made_up = made_up_batch(session.cfg, session.image_size, batch)
    if session.device.type == "cuda":
        made_up = made_up.pin_memory()  # as the loader does
    while True:
        yield made_up


def _set_policy(session: Session, model: StreamPETR, policy: str) -> None:
    """The ViT gets the policy; the decoder recomputes its layers under every policy but "off"."""
    vit: Any = model.backbone.net
    vit.use_act_checkpoint = POLICIES[policy]
    model.head.decoder.use_act_checkpoint = policy != "off"
    if (session.cfg.train.get("compile") or {}).get("backbone", False):
        check_checkpointing(vit)


def _policy_rows(session: Session, trainer: StreamingTrainer, tflop: float) -> list[Row]:
    """The step, its parts in milliseconds, and their shares."""
    watch = Stopwatch(session.device)
    for _ in range(max(session.warmup, 1)):  # the first one gives the optimiser its state
        step_laps(trainer, watch)
    memory = PeakMemory(session.device)
    runs = [step_laps(trainer, watch) for _ in range(session.repeats)]
    steps = [sum(run.values()) for run in runs]
    whole = time_row(steps, tflop, session.peak_tflops)
    medians = {part: 1e3 * median([run[part] for run in runs]) for part in PARTS}
    shares = {part: sum(run[part] for run in runs) / sum(steps) for part in PARTS}
    return [{**whole, "peak_memory_gib": memory.gib()}, medians, shares]
