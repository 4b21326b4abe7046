"""How long a frame takes, stage by stage; alone, or beside the padded plain form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.benchmark.result import Result, Row
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.timing import PeakMemory, Stopwatch, alternately, median, time_row
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.config import call
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame

STAGES = ("position embedding", "preprocess", "backbone", "head", "decode")
_FRAMES_AT_MOST = 32  # of a data set, kept in memory


class StreamRun:
    """A stream that goes over the same frames again and again.

    Args:
        session: device, precision.
        detector: on its device. Compilation and the cast to half precision change it.
        frames: on the device.
        compiled: torch.compile for the blocks of the ViT and for the decoder.
        cuda_graph: replay a captured graph, which has no stages.

    Attributes:
        laps: of each frame the seconds of its stages.
    """

    def __init__(
        self,
        session: Session,
        detector: StreamPETR,
        frames: Sequence[Frame],
        compiled: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        if compiled:
            compile_parts(detector, backbone=True, decoder=True)
        self.detector, self.laps = detector.eval(), list[dict[str, float]]()
        self._frames, self._watch = cycle(frames), Stopwatch(session.device)
        self._cuda_graph = cuda_graph
        self._stream = Stream(detector, session.precision, cuda_graph=cuda_graph, cast=True)

    def push(self) -> None:
        """The next frame."""
        frame = next(self._frames)
        if self._cuda_graph:  # hooks do not run in a replay
            self._stream.push(frame)
            return
        with stage_laps(self.detector, self._watch):
            self._watch.start()
            self._stream.push(frame)
            self._watch.lap("decode")
        self.laps.append(self._watch.seconds())


@contextmanager
def stage_laps(detector: StreamPETR, watch: Stopwatch) -> Iterator[None]:
    """Laps of `watch` at the borders of `STAGES`, but for the last, which ends with the frame.

    "backbone" has pyramid and neck, "head" everything between them and the boxes. A frame whose rig
    is another than the last one's begins with "position embedding", of StreamPETR's image tokens.
    """

    def before(module: nn.Module, name: str) -> Any:
        return module.register_forward_pre_hook(lambda *_: watch.lap(name))

    def after(module: nn.Module, name: str) -> Any:
        return module.register_forward_hook(lambda *_: watch.lap(name))

    handles = [
        before(detector.backbone, "preprocess"),
        after(detector.neck or detector.backbone, "backbone"),
        after(detector.head, "head"),
    ]
    encoder = getattr(detector.head, "position_encoder", None)
    if encoder is not None:
        handles += [before(encoder, "preprocess"), after(encoder, "position embedding")]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_latency(
    session: Session,
    *,
    cameras: int = 6,
    batch: int = 1,
    from_data: bool = False,
    compare_plain: bool = False,
    compiled: bool = False,
    cuda_graph: bool = False,
) -> Result:
    """Times a frame of a stream.

    Args:
        session: what to measure, and how often.
        cameras: of the made-up rig; a data set has its own.
        batch: streams.
        from_data: frames of the test set instead of a made-up one.
        compare_plain: run the padded plain form alternately, with the same weights and frames.
        compiled, cuda_graph: see `StreamRun`; of both forms.
    """
    peak_rows, frames = session.peak_rows, _frames(session, from_data, cameras, batch)
    runs, peaks_gib = {}, []
    for form in ("fast", "plain") if compare_plain else ("fast",):
        detector = _plain_form(session, runs["fast"].detector) if runs else session.build()
        runs[form] = StreamRun(session, detector, frames, compiled, cuda_graph)
        memory = PeakMemory(session.device)
        runs[form].push()  # with a graph, its capture
        peaks_gib.append(memory.gib())
    calls, warmup = [run.push for run in runs.values()], max(session.warmup - 1, 0)
    samples = alternately(calls, session.device, session.repeats, warmup)  # each has run once
    cameras, (height, width) = frames[0].images.shape[1], frames[0].image_size
    tflop = frame_tflop(session.cfg, (height, width), cameras, batch)
    where = {"input": f"{width}x{height}", "cameras": cameras, "batch": batch, "data": from_data}
    result = session.result("latency", **where, compiled=compiled, cuda_graph=cuda_graph)
    result.tables |= {"matrix peak": peak_rows, "frame": []}
    for (form, run), seconds, peak_gib in zip(runs.items(), samples, peaks_gib, strict=True):
        row: Row = {"form": form, **time_row(seconds, tflop["frame"], session.peak_tflops)}
        row |= {"fps": batch / median(seconds), "peak_memory_gib": peak_gib}
        result.tables["frame"].append(row)
        if run.laps:
            result.tables[f"stages, {form}"] = _stage_rows(session, run, frames[0], tflop)
    if compare_plain:
        fast, plain = (_outputs(session, run.detector, frames[0]) for run in runs.values())
        ratio = median(samples[1]) / median(samples[0])
        pairs = ((f"{k}_rel_diff", zip(fast[k], plain[k], strict=True)) for k in fast)
        differences = {name: max(relative_difference(*p) for p in pair) for name, pair in pairs}
        result.tables["fast against plain"] = [{"plain_over_fast": ratio, **differences}]
    return result


def _frames(session: Session, from_data: bool, cameras: int, batch: int) -> list[Frame]:
    """The frames to run, on the device: a made-up one, or the first of the test set."""
    if not from_data:
        return [made_up_frame(session.image_size, cameras, batch).to(session.device)]
    loader = call(session.cfg.dataloader.test, num_workers=0, rank=0, world_size=1)
    samples = islice(loader, min(session.repeats + session.warmup + 1, _FRAMES_AT_MOST))
    frames = [Frame.collate([sample] * batch).to(session.device) for (sample,) in samples]
    # Frame after frame of one stream: at the end of a scene and of the list it just goes on.
    continues = torch.ones_like(frames[0].continues_stream)
    return [replace(frame, continues_stream=continues) for frame in frames]


def _plain_form(session: Session, detector: StreamPETR) -> StreamPETR:
    """The padded plain form of a detector; shares its weights, cast ones as well."""
    plain = session.changed("model.backbone.net.xattn=false").build()
    plain.load_state_dict(detector.state_dict(), assign=True)
    return plain


def _stage_rows(
    session: Session, run: StreamRun, frame: Frame, tflop: dict[str, float]
) -> list[Row]:
    """A row for each stage that ran, and one for what is the same for all frames of a rig."""
    rows: list[Row] = []
    timed = run.laps[-session.repeats :]
    whole = median([sum(laps.values()) for laps in timed])
    for stage in STAGES:
        if any(stage in laps for laps in timed):
            seconds = [laps.get(stage, 0.0) for laps in timed]
            row = time_row(seconds, tflop.get(stage, 0.0), session.peak_tflops)
            rows.append({"stage": stage, "share_of_frame": median(seconds) / whole, **row})
    size = run.detector.padded_size(frame.image_size)
    encode = torch.no_grad()(lambda: run.detector.head.encode_rig(frame.rig, size))
    (seconds,) = alternately([encode], session.device, session.repeats)
    return [*rows, {"stage": "position embedding, once per rig", **time_row(seconds)}]


def _outputs(session: Session, detector: StreamPETR, frame: Frame) -> dict[str, list[Tensor]]:
    """The maps that the heads read and the scores of each stream, of a frame without past."""
    kept: dict[str, Tensor] = {}
    last = detector.neck or detector.backbone
    handle = last.register_forward_hook(lambda _module, _inputs, maps: kept.update(maps))
    found = Stream(detector, session.precision).push(frame)
    handle.remove()
    wanted = detector.in_feature
    names = (wanted,) if isinstance(wanted, str) else wanted
    scores = [detections.scores for detections in found.unpad()]
    return {"features": [kept[name].float() for name in names], "scores": scores}


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude; of score lists as far as both reach."""
    if values.dim() == 1:
        count = min(len(values), len(expected))
        values, expected = values[:count], expected[:count]
    if not values.numel():
        return 0.0
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((values - expected).abs().max() / largest)
