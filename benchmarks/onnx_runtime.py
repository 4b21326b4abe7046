#!/usr/bin/env python
"""How long onnxruntime takes for a frame, beside PyTorch's plain and fast form.

    python benchmarks/onnx_runtime.py [--config-file configs/quickstart.py] [--rounds 10]
        [--threads 2] [key=value ...]

Exports the recipe's detector with random weights, and plays a drive of made-up frames: each frame
goes to one form after the other, so that a machine's moods meet all of them. A frame is that of
`inference.Stream`: uint8 pictures in, boxes and the next memory out. What a rig fixes is computed
in the first frame, which is not timed. The graphs' backbone has the token embedding, which is the
head's in PyTorch.

Peak memory is that of a process of its own, which loads one form and runs two frames; Python and
its libraries are part of it. Fails if the forms do not find the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from streampetr_vit.benchmark.inputs import made_up_sample
from streampetr_vit.benchmark.measuring import (
    PeakMemory,
    Row,
    Stopwatch,
    as_text,
    describe_machine,
)
from streampetr_vit.benchmark.session import Session
from streampetr_vit.command_line import at_least
from streampetr_vit.data.nuscenes.spec import NUSCENES_FRAME_PERIOD_S, NUSCENES_LIDAR_TO_VEHICLE
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.export.checking import check_exportable
from streampetr_vit.export.describing import Origin, describe
from streampetr_vit.export.interface import GRAPHS
from streampetr_vit.export.optional import onnx, onnxruntime
from streampetr_vit.export.runner import OnnxDetector
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.inference import Stream
from streampetr_vit.inference.recipe_parts import leave_out_training, spec_of
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.progress import Progress
from streampetr_vit.structures import Frame, PaddedDetections, Pose

T = TypeVar("T")
RECIPE = Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"
CPU = torch.device("cpu")
PLAIN, FAST, GRAPH = "PyTorch, plain", "PyTorch, fast", "onnxruntime"
FORMS = (PLAIN, FAST, GRAPH)
PLACE_M, SPEED_MPS = 600.0, 8.0  # of the made-up car on the map, along x
WARMUP = 2  # frames: the code of the rig, and a memory that is not empty
PAUSE_S = 0.05  # before each frame: the threads of the form before have gone to sleep
TOLERANCE = 1e-3  # of scores, metres and metres per second


class TimedSessions:
    """`Sessions` that tell a watch when the backbone and the head have run."""

    def __init__(self, sessions: Sessions, watch: Stopwatch) -> None:
        self.description, self.interface = sessions.description, sessions.interface
        self.position = sessions.position
        self._sessions, self._watch = sessions, watch

    def backbone(self, img: np.ndarray) -> np.ndarray:
        """As `Sessions.backbone`."""
        self._watch.lap("rest")
        features = self._sessions.backbone(img)
        self._watch.lap("backbone")
        return features

    def head(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """As `Sessions.head`."""
        self._watch.lap("rest")
        found = self._sessions.head(**inputs)
        self._watch.lap("head")
        return found


class Form:
    """One way to run the detector, with its own stream.

    Attributes:
        laps: of each frame the seconds of its stages: "backbone", with pyramid and neck; "head", up
            to the raw boxes and the memory; "rest".
        found: what it has detected in each frame.
    """

    def __init__(self, session: Session, name: str, folder: Path) -> None:
        self.name, self._watch = name, Stopwatch(CPU)
        self.laps: list[dict[str, float]] = []
        self.found: list[PaddedDetections] = []
        if name == GRAPH:
            timed = TimedSessions(Sessions.open(folder), self._watch)
            self._stream = Stream(OnnxDetector(timed))
            return
        self.detector = build(session if name == FAST else plain(session))
        self._watch.attach(self.detector.backbone, before="rest")
        self._watch.attach(self.detector.neck or self.detector.backbone, after="backbone")
        self._watch.attach(self.detector.head, after="head")
        self._stream = Stream(self.detector)

    def push(self, frame: Frame) -> None:
        """Runs the next frame."""
        self._watch.start()
        found = self._stream.push(frame)
        self._watch.lap("rest")
        self.laps.append(self._watch.seconds())
        self.found.append(found)


def build(session: Session) -> StreamPETR:
    """The recipe's detector without its training; the same random weights in each process."""
    leave_out_training(session.cfg)
    return session.build().eval()


def plain(session: Session) -> Session:
    """The recipe with the padded plain form of the backbone."""
    return session.changed("model.backbone.net.xattn=false")


def frames(session: Session, count: int) -> list[Frame]:
    """A drive along x, two frames a second, with other random pictures in each frame."""
    cameras = len(spec_of(session.cfg).cameras)
    sample, random = made_up_sample(session.image_size, cameras), torch.Generator().manual_seed(1)
    drive = []
    for index in range(count):
        pose, back = (torch.eye(4, dtype=torch.float64) for _ in range(2))
        pose[0, 3] = PLACE_M + SPEED_MPS * NUSCENES_FRAME_PERIOD_S * index
        back[0, 3] = -pose[0, 3]
        pictures = torch.randint(256, sample.images.shape, generator=random, dtype=torch.uint8)
        moved = replace(
            sample,
            images=pictures,
            lidar_to_global=pose,
            global_to_lidar=back,
            timestamp_s=sample.timestamp_s + NUSCENES_FRAME_PERIOD_S * index,
            continues_stream=torch.tensor(index > 0),
        )
        drive.append(Frame.collate([moved]))
    return drive


def export(session: Session, folder: Path) -> Row:
    """Writes the graphs: seconds, peak memory of this process, and size of the files."""
    memory, detector, size = PeakMemory(CPU), build(session), session.image_size
    check_exportable(detector, size)
    description = describe(
        detector,
        spec_of(session.cfg),
        size,
        Pose.of_row(NUSCENES_LIDAR_TO_VEHICLE),
        NUSCENES_FRAME_PERIOD_S,
        remembers=True,
        origin=Origin(Path(session.config_file).stem, "random weights", "", ema=False),
        frame="lidar",
        precision="fp32",
    )
    start = time.perf_counter()
    export_graphs(detector, description, folder)
    row = {"seconds": time.perf_counter() - start, "peak_gib": memory.gib()}
    return row | {f"{name} MB": (folder / name).stat().st_size / 1e6 for name in GRAPHS}


def peak_gib(session: Session, name: str, folder: Path, drive: Sequence[Frame]) -> float | None:
    """The peak memory of this process, in which a form runs a few frames."""
    memory, form = PeakMemory(CPU), Form(session, name, folder)
    for frame in drive:
        form.push(frame)
    return memory.gib()


def apart(function: Callable[..., T], threads: int, *arguments: object) -> T:
    """What a function returns in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (threads,)) as pool:
        return pool.submit(function, *arguments).result()


def time_rows(forms: Sequence[Form], peaks: Sequence[float | None]) -> list[Row]:
    """A row for each form: its median and fastest frame, and the medians of its stages."""
    rows, plain_s = [], 0.0
    for form, peak in zip(forms, peaks, strict=True):
        laps = form.laps[WARMUP:]
        totals = [sum(lap.values()) for lap in laps]
        median_s = statistics.median(totals)
        plain_s = plain_s or median_s  # the plain form is the first
        row = {"form": form.name, "p50_ms": 1e3 * median_s, "fastest_ms": 1e3 * min(totals)}
        row["plain / this"] = plain_s / median_s
        for stage in ("backbone", "head", "rest"):
            row[f"{stage}_ms"] = 1e3 * statistics.median(lap.get(stage, 0.0) for lap in laps)
        rows.append({**row, "peak_gib": peak})
    return rows


def differences(form: Form, other: Form, learned: int) -> Row:
    """How far two forms are apart, over all frames.

    Boxes are compared where both have found a class in one of the `learned` queries, which come
    first: the others stand in the order of the memory, where entries whose scores are equal but for
    rounding change places. Their yaw is left out: of random weights, sine and cosine may both be
    nearly 0.

    Raises:
        InputError: by more than the tolerance, or too few boxes have a partner.
    """
    scores, boxes, shares = 0.0, 0.0, []
    for here, there in zip(form.found, other.found, strict=True):
        (ours,), (theirs,) = here.unpad(), there.unpad()
        if not len(ours) == len(theirs) > 0:
            raise InputError(f"{form.name} finds {len(ours)} boxes, {other.name} {len(theirs)}")
        scores = max(scores, float((ours.scores - theirs.scores).abs().max()))
        same = (ours.queries[:, None] == theirs.queries) & (ours.labels[:, None] == theirs.labels)
        same &= (ours.queries < learned)[:, None]
        rows, partners = same.nonzero(as_tuple=True)
        shares.append(len(rows) / max(int((ours.queries < learned).sum()), 1))
        apart_m = (ours.boxes[rows] - theirs.boxes[partners])[:, [0, 1, 2, 3, 4, 5, 7, 8]]
        boxes = max(boxes, float(apart_m.abs().amax()) if len(rows) else 0.0)
    row = {"form": form.name, "against": other.name, "scores": scores, "boxes": boxes}
    # Weak boxes at the end of a list may be others, where scores are nearly equal.
    if max(scores, boxes) > TOLERANCE or min(shares) < 0.9:
        raise InputError(f"the forms do not find the same: {row}, common boxes {min(shares):.2f}")
    return {**row, "fewest common boxes": min(shares)}


@one_line_errors()
def main() -> None:
    """Exports, measures, compares, and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=str(RECIPE))
    parser.add_argument("--rounds", type=at_least(1), default=10, help="timed frames; default: 10")
    parser.add_argument("--threads", type=at_least(1), default=2, help="of the CPU; default: 2")
    parser.add_argument("overrides", nargs="*", help="changes of the configuration, key=value")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    versions = {"onnxruntime": onnxruntime().__version__, "onnx": onnx().__version__}

    def session() -> Session:
        return Session(args.config_file, args.overrides)  # of its own: building changes it

    drive = frames(session(), WARMUP + args.rounds)
    # Table by table: what was measured is to be seen though the rest should fail.
    show = partial(print, end="\n\n", flush=True)
    show(as_text({"machine": [describe_machine(CPU) | versions]}))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show(as_text({"export": [apart(export, args.threads, session(), folder)]}))
        peaks = [
            apart(peak_gib, args.threads, session(), form, folder, drive[:2]) for form in FORMS
        ]
        forms = [Form(session(), form, folder) for form in FORMS]
        with Progress("frames", len(drive), "frames") as progress:
            for frame in drive:
                for form in forms:
                    time.sleep(PAUSE_S)
                    form.push(frame)
                progress.update()
    show(as_text({f"a frame, {args.rounds} rounds": time_rows(forms, peaks)}))
    learned = forms[1].detector.head.num_queries
    compared = [differences(form, forms[1], learned) for form in (forms[0], forms[2])]
    print(as_text({"largest differences": compared}))


if __name__ == "__main__":
    main()
