"""What a training step consists of, in time and in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.benchmark.inputs import made_up_batch
from streampetr_vit.benchmark.memory import PeakMemory
from streampetr_vit.benchmark.report import Report, Row, first_line
from streampetr_vit.benchmark.session import Session, frame_tflop, require_positive
from streampetr_vit.benchmark.timing import Stopwatch, percentile
from streampetr_vit.data.batch import Batch
from streampetr_vit.data.build import default_workers
from streampetr_vit.engine.compile import check_checkpointing
from streampetr_vit.engine.config import call
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.training_loss import FrameResult, TrainingLoss
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast
from streampetr_vit.structures import FrameTargets

PARTS = ("data", "forward", "loss", "loss_backward", "backward", "optimizer")
# Name of a policy -> what `ViT.use_act_checkpoint` is set to.
POLICIES: dict[str, bool | str] = {"off": False, "block": True, "selective": "selective"}


class TimedCriterion:
    """A criterion with laps of its own for matching and losses, and for their backward pass.

    Autograd runs what was computed last first: the losses' part of it is over when the first
    gradient reaches an output of the network.

    Args:
        criterion: what it calls.
        watch: of the step.
    """

    def __init__(self, criterion: TrainingLoss, watch: Stopwatch) -> None:
        self.criterion, self.image, self._watch = criterion, criterion.image, watch
        self._in_losses = False

    def __call__(
        self, results: Sequence[FrameResult], targets: Sequence[FrameTargets]
    ) -> dict[str, Tensor]:
        """As the criterion."""
        self._watch.lap("forward")
        self._in_losses = True
        for output in (part for r in results for part in (r.output, r.image_output) if part):
            for value in vars(output).values():
                if isinstance(value, Tensor) and value.requires_grad:
                    value.register_hook(self._reached)
        losses = self.criterion(results, targets)
        self._watch.lap("loss")
        return losses

    def _reached(self, _gradient: Tensor) -> None:
        if self._in_losses:
            self._watch.lap("loss_backward")
        self._in_losses = False


class TrainingStep:
    """One step after the other, as the trainer takes them, with laps.

    Args:
        session: whose optimiser and precision to take.
        model: on the device; put into training mode, and trained.
        batches: without end.
    """

    def __init__(self, session: Session, model: StreamPETR, batches: Iterable[Any]) -> None:
        if model.criterion is None:
            raise InputError("a training step needs model.criterion")
        self._model, self._session = model.train(), session
        self._watch, self._batches = Stopwatch(session.device), iter(batches)
        model.criterion = TimedCriterion(model.criterion, self._watch)  # type: ignore[assignment]
        self._optimizer = build_optimizer(session.cfg.optimizer, model)
        self._scaler = torch.amp.GradScaler(
            session.device.type, enabled=session.precision == "fp16"
        )

    def run(self) -> dict[str, float]:
        """Seconds of each part of one step."""
        watch, clip = self._watch, self._session.cfg.train.clip_grad_norm
        watch.start()
        batch = next(self._batches)
        watch.lap("data")
        with autocast(self._session.precision, self._session.device.type):
            losses = self._model(batch)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        watch.lap("loss")
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        watch.lap("backward")
        self._scaler.unscale_(self._optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        watch.lap("optimizer")
        return watch.seconds()

    def free(self) -> None:
        """Drops gradients and streams, as after a step that ran out of memory."""
        self._optimizer.zero_grad(set_to_none=True)
        self._model.reset_streams()


def set_policy(model: StreamPETR, policy: str) -> None:
    """Chooses what the backward pass computes anew.

    Args:
        model: its ViT gets the policy; its decoder recomputes layers under every policy but "off".
        policy: one of `POLICIES`.
    """
    vit: Any = model.backbone.net
    vit.use_act_checkpoint = POLICIES[policy]
    model.head.decoder.use_act_checkpoint = policy != "off"


def measure_training(
    session: Session,
    *,
    batch: int = 1,
    policies: Sequence[str] = tuple(POLICIES),
    from_data: bool = False,
) -> Report:
    """Times training steps and their peak memory under each checkpointing policy.

    Args:
        session: what to measure, and how often.
        batch: streams.
        policies: of `POLICIES`. One that fails (not enough memory, say) is a row with its error.
        from_data: batches of dataloader.train instead of a made-up one.

    Raises:
        InputError: unknown policy, or no stream.
    """
    unknown = [policy for policy in policies if policy not in POLICIES]
    if unknown:
        raise InputError(f"--checkpointing {unknown[0]!r} is unknown; use {', '.join(POLICIES)}")
    require_positive("--batch", batch)
    peak_row = session.peak_row()
    model = session.build()
    step = TrainingStep(session, model, _batches(session, batch, from_data))
    if from_data:
        # What the workers have made ahead by now says nothing about their pace.
        settings = session.cfg.dataloader.train
        workers = default_workers() if settings.num_workers is None else settings.num_workers
        for _ in range(workers * settings.get("prefetch_factor", 2)):
            step.run()
    size = model.padded_size(session.image_size)
    # Backward is twice forward; what a policy computes anew is no useful work.
    tflop = 3 * frame_tflop(session.cfg, size, 6, batch)["frame"]
    compiled = (session.cfg.train.get("compile") or {}).get("backbone", False)
    report = session.report("train", input=f"{size[1]}x{size[0]}", batch=batch, data=from_data)
    report.tables["matrix peak"] = [peak_row]
    names = ("step", "milliseconds of a step, p50", "shares of all steps")
    report.tables |= {name: [] for name in names}
    for policy in policies:
        try:
            set_policy(model, policy)
            if compiled:
                check_checkpointing(model.backbone.net)
            rows = _policy_rows(session, step, tflop)
        except (RuntimeError, ValueError, TypeError, InputError) as error:
            rows = [{"error": first_line(error)}]
            step.free()
        for name, row in zip(names, rows, strict=False):
            report.tables[name].append({"checkpointing": policy, **row})
    report.notes.append(
        "tflop: three times the forward pass of one frame of every stream, without denoising "
        "queries, 2D head and recomputation."
    )
    return report


def _batches(session: Session, batch: int, from_data: bool) -> Iterator[Any]:
    if from_data:
        settings = session.cfg.dataloader.train
        yield from call(settings, lanes_per_rank=batch, rank=0, world_size=1)
    made_up = Batch(made_up_batch(session.cfg, session.image_size, batch))
    if session.device.type == "cuda":
        made_up.pin_memory()
    while True:
        yield made_up


def _policy_rows(session: Session, step: TrainingStep, tflop: float) -> list[Row]:
    """The step, its parts in milliseconds, and their shares.

    After the warm-up, which gives the optimiser its state: at least one step.
    """
    for _ in range(max(session.repeats.warmup, 1)):
        step.run()
    memory = PeakMemory(session.device)
    runs = [step.run() for _ in range(session.repeats.timed)]
    steps = [sum(run.values()) for run in runs]
    median = percentile(steps, 50)
    whole: Row = {
        "p50_ms": 1e3 * median,
        "p90_ms": 1e3 * percentile(steps, 90),
        "tflop": tflop,
        "tflops": tflop / median,
        "share_of_peak": tflop / (median * session.peak.tflops),
        "peak_memory_gib": memory.gib(),
    }
    medians = {part: 1e3 * percentile([run[part] for run in runs], 50) for part in PARTS}
    shares = {part: sum(run[part] for run in runs) / sum(steps) for part in PARTS}
    return [whole, medians, shares]
