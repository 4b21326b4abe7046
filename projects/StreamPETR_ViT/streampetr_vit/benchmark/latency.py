"""How long a frame takes, stage by stage; alone, or beside the padded plain form."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.benchmark.inputs import continuing, frames_to_run
from streampetr_vit.benchmark.memory import PeakMemory
from streampetr_vit.benchmark.report import Report, Row
from streampetr_vit.benchmark.session import Session, frame_tflop, require_positive
from streampetr_vit.benchmark.stages import (
    STAGES,
    image_branch_end,
    stage_laps,
    streaming_step,
)
from streampetr_vit.benchmark.timing import Repeats, Stopwatch, alternately, percentile
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame


@dataclass(frozen=True)
class FirstFrame:
    """What a detector says about a frame without past.

    Attributes:
        features: the maps that the heads read.
        scores: of each stream's detections, descending.
        peak_gib: memory while it ran; None where unknown.
    """

    features: list[Tensor]
    scores: list[Tensor]
    peak_gib: float | None


class Candidate:
    """A detector that runs over frames as over a stream, with its laps.

    Args:
        name: in the report.
        detector: on its device; put into evaluation mode.
        session: device, precision.
        frames: to run in turn, again and again.
        compiled, cuda_graph: see `streaming_step`. A replayed graph has no stages.
    """

    def __init__(
        self,
        name: str,
        detector: StreamPETR,
        session: Session,
        frames: Sequence[Frame],
        compiled: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        self.name, self.detector = name, detector.eval()
        self.laps: list[dict[str, float]] = []
        self._session, self._cuda_graph = session, cuda_graph
        self._watch, self._frames = Stopwatch(session.device), frames
        self._step = streaming_step(detector, session.precision, compiled, cuda_graph)
        self._memory = detector.empty_memory(len(frames[0].timestamp_s))
        self._count = 0

    def first_frame(self) -> FirstFrame:
        """Runs the first frame eagerly and keeps what it gave; the memory is that of the step."""
        kept: dict[str, Tensor] = {}
        handle = image_branch_end(self.detector).register_forward_hook(
            lambda _module, _inputs, output: kept.update(output)
        )
        peak = PeakMemory(self._session.device)
        try:
            graph_free = streaming_step(self.detector, self._session.precision)
            step = graph_free if self._cuda_graph else self._step
            detections, _ = step.step(self._frames[0], self._memory)
        finally:
            handle.remove()
        if self._cuda_graph:
            peak.start()
            self.run()  # the capture
        wanted = self.detector.in_feature
        names = (wanted,) if isinstance(wanted, str) else wanted
        features = [kept[name].float() for name in names]
        return FirstFrame(features, [found.scores for found in detections.unpad()], peak.gib())

    def rig_seconds(self, repeats: Repeats) -> list[float]:
        """Of computing what is the same for all frames of a rig."""
        head, rig = self.detector.head, self._frames[0].rig
        size = self.detector.padded_size(self._frames[0].image_size)

        @torch.no_grad()
        def encode() -> None:
            head.encode_rig(rig, size)

        return alternately([encode], self._session.device, repeats)[0]

    def run(self) -> None:
        """The next frame of the stream."""
        frame = self._frames[self._count % len(self._frames)]
        frame = continuing(frame) if self._count else frame
        self._count += 1
        if self._cuda_graph:
            _, self._memory = self._step.step(frame, self._memory)
            return
        with stage_laps(self.detector, self._watch):
            self._watch.start()
            _, self._memory = self._step.step(frame, self._memory)
            self._watch.lap("decode")

    def keep_laps(self) -> None:
        """Keeps the laps of the last run, if it had any."""
        if not self._cuda_graph:
            self.laps.append(self._watch.seconds())


def measure_latency(
    session: Session,
    *,
    cameras: int = 6,
    batch: int = 1,
    from_data: bool = False,
    compare_plain: bool = False,
    compiled: bool = False,
    cuda_graph: bool = False,
) -> Report:
    """Times the streaming step.

    Args:
        session: what to measure, and how often.
        cameras: of the made-up rig; a data set has its own.
        batch: streams.
        from_data: frames of the test set instead of a made-up one.
        compare_plain: run the padded plain form alternately, with the same weights and frames.
        compiled, cuda_graph: see `streaming_step`; of both forms.
    """
    require_positive("--num-cameras", cameras)
    require_positive("--batch", batch)
    peak_row = session.peak_row()
    frames = frames_to_run(session, from_data, cameras, batch)
    modes = {"compiled": compiled, "cuda_graph": cuda_graph}
    candidates = [Candidate("fast", session.build(), session, frames, **modes)]
    firsts = [candidates[0].first_frame()]
    if compare_plain:
        plain = plain_form(session, candidates[0].detector)
        candidates.append(Candidate("plain", plain, session, frames, **modes))
        firsts.append(candidates[1].first_frame())
    # The first frame has warmed up once already.
    repeats = Repeats(session.repeats.timed, max(session.repeats.warmup - 1, 0))
    samples = alternately(
        [candidate.run for candidate in candidates],
        session.device,
        repeats,
        after=lambda index: candidates[index].keep_laps(),
    )

    cameras = frames[0].images.shape[1]
    size = candidates[0].detector.padded_size(frames[0].image_size)
    tflop = frame_tflop(session.cfg, size, cameras, batch)
    where = {"input": f"{size[1]}x{size[0]}", "cameras": cameras, "batch": batch}
    report = session.report("latency", **where, data=from_data, **modes)
    report.tables["matrix peak"] = [peak_row]
    report.tables["frame"] = []
    for candidate, first, seconds in zip(candidates, firsts, samples, strict=True):
        row = frame_row(seconds, tflop["frame"], session.peak.tflops, batch)
        row = {"form": candidate.name, **row, "peak_memory_gib": first.peak_gib}
        report.tables["frame"].append(row)
        if candidate.laps:
            rows = stage_rows(candidate.laps, tflop, session)
            rows.append(rig_row(candidate.rig_seconds(session.repeats)))
            report.tables[f"stages, {candidate.name}"] = rows
    if compare_plain:
        report.tables["fast against plain"] = [comparison(samples, firsts)]
    return report


def plain_form(session: Session, detector: StreamPETR) -> StreamPETR:
    """The padded plain form of a detector; shares its weights."""
    cfg = copy.deepcopy(session.cfg)
    cfg.model.backbone.net.xattn = False
    plain = session.build(cfg)
    plain.load_state_dict(detector.state_dict(), assign=True)
    return plain


def frame_row(seconds: list[float], tflop: float, peak_tflops: float, batch: int) -> Row:
    """Times of whole frames, and what they make of the machine's matrix peak.

    Args:
        seconds: of each run.
        tflop: useful TFLOP of one.
        peak_tflops: TFLOP/s of the machine.
        batch: streams of a run, which count for the frames per second.
    """
    median = percentile(seconds, 50)
    return {
        "p50_ms": 1e3 * median,
        "p90_ms": 1e3 * percentile(seconds, 90),
        "fps": batch / median,
        "tflop": tflop,
        "tflops": tflop / median,
        "share_of_peak": tflop / (median * peak_tflops),
    }


def stage_rows(
    laps: list[dict[str, float]], tflop: dict[str, float], session: Session
) -> list[Row]:
    """A row for each stage that ran."""
    rows = []
    whole = percentile([sum(run.values()) for run in laps], 50)
    for stage in STAGES:
        if not any(stage in run for run in laps):
            continue
        seconds = [run.get(stage, 0.0) for run in laps]
        median = percentile(seconds, 50)
        row: dict[str, Any] = {
            "stage": stage,
            "p50_ms": 1e3 * median,
            "p90_ms": 1e3 * percentile(seconds, 90),
            "share_of_frame": median / whole,
        }
        if tflop.get(stage) and median:
            row["tflop"] = tflop[stage]
            row["share_of_peak"] = tflop[stage] / (median * session.peak.tflops)
        rows.append(row)
    return rows


def rig_row(seconds: list[float]) -> Row:
    """What a new rig costs: the 3D position embedding, which other frames find computed."""
    return {
        "stage": "position embedding, once per rig",
        "p50_ms": 1e3 * percentile(seconds, 50),
        "p90_ms": 1e3 * percentile(seconds, 90),
    }


def comparison(samples: list[list[float]], firsts: list[FirstFrame]) -> Row:
    """How much sooner the fast form is, and how far its numbers are from the plain ones."""
    fast, plain = (percentile(seconds, 50) for seconds in samples)
    features = zip(firsts[0].features, firsts[1].features, strict=True)
    scores = zip(firsts[0].scores, firsts[1].scores, strict=True)
    return {
        "plain_over_fast": plain / fast,
        "features_rel_diff": max(relative_difference(*pair) for pair in features),
        "scores_rel_diff": max(relative_difference(*pair) for pair in scores),
    }


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude; of score lists as far as both reach."""
    if values.dim() == 1:
        count = min(len(values), len(expected))
        values, expected = values[:count], expected[:count]
    if not values.numel():
        return 0.0
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((values - expected).abs().max() / largest)
