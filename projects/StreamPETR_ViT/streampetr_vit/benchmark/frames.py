"""How long a frame takes: stage by stage, beside the padded plain form, and against its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from statistics import median

import torch
from torch import Tensor

from streampetr_vit.benchmark import measuring
from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.benchmark.session import Session
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.config import call
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast
from streampetr_vit.structures import Frame

SIDES = ("backbone", "frame")


class StreamRun:
    """A stream that goes over the same frames again and again.

    Stages: "preprocess"; "backbone", with pyramid and neck; "head", everything between them and the
    boxes; "decode". A frame whose rig is another than the last one's also has "position embedding",
    of StreamPETR's image tokens.

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
        *,
        compiled: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        if compiled:
            compile_parts(detector, backbone=True, decoder=True)
        self.detector, self.laps = detector.eval(), list[dict[str, float]]()
        self._frames, self._watch = cycle(frames), measuring.Stopwatch(session.device)
        self._stream = Stream(detector, session.precision, cuda_graph=cuda_graph, cast=True)
        self._has_stages = not cuda_graph  # hooks do not run in a replay
        if self._has_stages:
            self._watch.attach(detector.backbone, before="preprocess")
            self._watch.attach(detector.neck or detector.backbone, after="backbone")
            self._watch.attach(detector.head, after="head")
            encoder = getattr(detector.head, "position_encoder", None)
            if encoder is not None:
                self._watch.attach(encoder, before="preprocess", after="position embedding")

    def push(self) -> None:
        """The next frame."""
        self._watch.start()
        self._stream.push(next(self._frames))
        if self._has_stages:
            self._watch.lap("decode")
            self.laps.append(self._watch.seconds())


def measure_latency(
    session: Session,
    *,
    cameras: int = 6,
    batch: int = 1,
    from_data: bool = False,
    compare_plain: bool = False,
    **modes: bool,
) -> measuring.Tables:
    """Times a frame of a stream.

    Args:
        session: what to measure, and how often.
        cameras: of the made-up rig; a data set has its own.
        batch: streams.
        from_data: frames of the test set instead of a made-up one.
        compare_plain: run the padded plain form alternately, with the same weights and frames.
        modes: compiled, cuda_graph of `StreamRun`, for both forms.
    """
    tables: measuring.Tables = {"matrix peak": session.peak_rows, "frame": []}
    frames, runs, peaks_gib = _frames(session, from_data, cameras, batch), {}, []
    for form in ("fast", "plain") if compare_plain else ("fast",):
        detector = _plain_form(session, runs["fast"].detector) if runs else session.build()
        runs[form] = StreamRun(session, detector, frames, **modes)
        memory = measuring.PeakMemory(session.device)
        runs[form].push()  # with a graph, its capture
        peaks_gib.append(memory.gib())
    warmup = max(session.warmup - 1, 0)  # each has run once
    samples = measuring.alternately([run.push for run in runs.values()], session.repeats, warmup)
    cameras, (height, width) = frames[0].images.shape[1], frames[0].image_size
    tflop = frame_tflop(session.cfg, (height, width), cameras, batch)
    for (form, run), seconds, peak_gib in zip(runs.items(), samples, peaks_gib, strict=True):
        row = {"form": form, "cameras": cameras, "input": f"{width}x{height}"}
        row |= measuring.time_row(seconds, tflop["frame"], session.peak_tflops)
        row |= {"fps": batch / median(seconds), "peak_memory_gib": peak_gib}
        tables["frame"].append(row)
        if run.laps:
            laps = run.laps[-session.repeats :]
            tables[f"stages, {form}"] = measuring.stage_rows(laps, tflop, session.peak_tflops)
    detector, size = runs["fast"].detector, runs["fast"].detector.padded_size((height, width))
    encode = torch.no_grad()(partial(detector.head.encode_rig, frames[0].rig, size))
    (seconds,) = measuring.alternately([encode], session.repeats)
    tables["position embedding, once per rig"] = [measuring.time_row(seconds)]
    if compare_plain:
        ratio = median(samples[1]) / median(samples[0])
        fast, plain = (_outputs(session, run.detector, frames[0]) for run in runs.values())
        row = {"plain_over_fast": ratio}
        for name, maps in fast.items():
            row[f"{name}_rel_diff"] = max(map(measuring.relative_difference, maps, plain[name]))
        tables["fast against plain"] = [row]
    return tables


def _frames(session: Session, from_data: bool, cameras: int, batch: int) -> list[Frame]:
    """The frames to run, on the device: a made-up one, or the first of the test set."""
    if not from_data:
        return [made_up_frame(session.image_size, cameras, batch).to(session.device)]
    loader = call(session.cfg.dataloader.test, num_workers=0, rank=0, world_size=1)
    samples = islice(loader, min(session.repeats + session.warmup + 1, 32))  # kept in memory
    frames = [Frame.collate([sample] * batch).to(session.device) for (sample,) in samples]
    # Frame after frame of one stream: at the end of a scene and of the list it just goes on.
    continues = torch.ones_like(frames[0].continues_stream)
    return [replace(frame, continues_stream=continues) for frame in frames]


def _plain_form(session: Session, detector: StreamPETR) -> StreamPETR:
    """The padded plain form of a detector; shares its weights, cast ones as well."""
    plain = session.changed("model.backbone.net.xattn=false").build()
    plain.load_state_dict(detector.state_dict(), assign=True)
    return plain


@torch.no_grad()
def _outputs(session: Session, detector: StreamPETR, frame: Frame) -> dict[str, list[Tensor]]:
    """The maps that the heads read, and the best scores, of a frame without past."""
    scores = Stream(detector, session.precision).push(frame).scores
    with autocast(session.precision, session.device.type):
        maps = detector.image_features(frame.images)
    return {"features": [maps] if isinstance(maps, Tensor) else maps, "scores": [scores]}


def measure_scaling(
    session: Session,
    values: Mapping[str, Sequence[tuple[int, ...]]],
    *,
    cameras: int,
    batch: int,
    stage: str,
) -> measuring.Tables:
    """Times each point of each series. One that cannot be built is a row with its error.

    Args:
        session: what to measure, and how often.
        values: of "cameras", "memory", "queries" and "batch": (number,) for each point; of
            "resolution": (width, height).
        cameras, batch: where the series does not change them.
        stage: of `SIDES`; "backbone" times that part of the frame.
    """
    tables: measuring.Tables = {}
    for series, value in ((name, value) for name, of_it in values.items() for value in of_it):
        counts = {"cameras": cameras, "batch": batch}
        if series in counts:
            (counts[series],) = value
        changed = session.changed(*_overrides(session, series, value))
        row = measuring.row_or_error(partial(_point_row, changed, stage, **counts))
        row = {series: "x".join(map(str, value)), **row}
        tables.setdefault(f"time against {series}", []).append(row)
    return tables


def _overrides(session: Session, series: str, value: tuple[int, ...]) -> list[str]:
    """What a value of a series changes in the configuration."""
    if series != "resolution":
        keys = {"memory": "memory_length", "queries": "num_queries"}
        return [f"model.head.{keys[series]}={value[0]}"] if series in keys else []
    width, height = value
    changes = [f"dataloader.train.mapper.image_aug.final_size=[{height},{width}]"]
    net, side = session.net, min(height, width)
    if (height, width) != session.image_size:
        # The rotary tables follow the shorter side: the global windows span it, as in the recipes.
        changes.append(f"model.backbone.net.img_size={side}")
        if net.global_window_size:  # 0 is the whole map, whatever its size
            changes.append(f"model.backbone.net.global_window_size={side // net.patch_size}")
    return changes


def _point_row(session: Session, stage: str, cameras: int, batch: int) -> measuring.Row:
    size = session.image_size
    frame = made_up_frame(size, cameras, batch).to(session.device)
    run = StreamRun(session, session.build(), [frame])
    run.push()  # computes what is the same for all frames of a rig
    (seconds,) = measuring.alternately([run.push], session.repeats, session.warmup)
    if stage != "frame":
        seconds = [laps[stage] for laps in run.laps[-session.repeats :]]
    patch = session.net.patch_size
    height, width = run.detector.padded_size(size)
    tokens = batch * cameras * (height // patch) * (width // patch)
    row = measuring.time_row(seconds, frame_tflop(session.cfg, size, cameras, batch)[stage])
    per_token = {"us_per_token": 1e3 * row["p50_ms"] / tokens}
    return {"real_tokens": tokens, **row, **per_token, "ms_per_tflop": row["p50_ms"] / row["tflop"]}
