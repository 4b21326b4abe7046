#!/usr/bin/env python
"""Detects objects in a drive of your own car, or in a data set, and writes and draws them.

The memory that it needs does not grow with the length of a drive. The same command again goes on
where a killed one stopped, and the files are those of a run that nothing has stopped.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.command_line import above_0, add_trust, at_least, file_path, not_negative
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.engine import launch
from streampetr_vit.engine.distributed import wait_for_main
from streampetr_vit.errors import one_line_errors
from streampetr_vit.inference import Predictor
from streampetr_vit.inference.playing.play import Play, play_scenes
from streampetr_vit.inference.playing.record import PlayRecord
from streampetr_vit.inference.playing.scene_progress import SceneProgress
from streampetr_vit.inference.playing.shares import Worker, choose_scenes, share
from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sinks.building import (
    SINK_NAMES,
    SinkOptions,
    build_sinks,
    check_sinks,
)
from streampetr_vit.inference.sources import FolderSource, NuScenesSource, Source
from streampetr_vit.progress import Progress
from streampetr_vit.texts import name_list
from streampetr_vit.tracking.building import TRACKER_NAMES

EXAMPLES = """
examples:
  a drive of your own car (rig.yaml, frames.csv, pictures) with the weights of a training:
    python tools/predict.py --run output/quickstart --folder my_drive --out output/my_drive \\
        --write json video
  a data set in the nuScenes format, as a results file:
    python tools/predict.py --config-file configs/petr_eva02_l_800x320_24ep.py \\
        --weights model.pth --dataset datasets/nuscenes v1.0-mini mini_val \\
        --out output/mini --write nuscenes
  the exported graphs of a detector, without PyTorch's:
    python tools/predict.py --onnx output/onnx --folder my_drive --out output/my_drive
  on two GPUs, which share the scenes:
    torchrun --nproc-per-node 2 -- tools/predict.py --run output/quickstart --folder my_drive \\
        --out output/my_drive
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_predictor_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--folder", type=file_path, help="of a drive: rig.yaml, frames.csv, pictures or videos"
    )
    source.add_argument(
        "--dataset", nargs="+", metavar="WORD", help="a registered name, or ROOT VERSION SPLIT"
    )
    parser.add_argument("--scenes", nargs="+", metavar="NAME", help="play only these scenes")
    parser.add_argument("--frames", type=at_least(1), help="play at most so many of each scene")
    parser.add_argument("--out", type=file_path, required=True, help="folder of the results")
    parser.add_argument(
        "--write",
        nargs="+",
        choices=SINK_NAMES,
        default=["json"],
        help="json: objects.jsonl, a line for each frame (the default). nuscenes: "
        "results_nusc.json. tracking: tracking_nusc.json, with --tracker. video: an MP4 file of "
        "each scene. png: a picture of each frame. rrd: a recording of each scene for rerun's "
        "viewer",
    )
    parser.add_argument(
        "--min-score", type=not_negative, default=0.0, help="of objects in JSON (default: 0, all)"
    )
    parser.add_argument(
        "--score-threshold", type=not_negative, default=0.25, help="of drawings (default: 0.25)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the results of an earlier start first"
    )
    args = parser.parse_args(arguments)
    if args.dataset and len(args.dataset) not in (1, 3):
        parser.error("--dataset takes a registered name, or ROOT VERSION SPLIT")
    if args.config_file and not args.weights:
        parser.error("--config-file needs --weights: a recipe has none of its own")
    return args


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `Predictor.load` takes."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=file_path, help="folder of a training: its last checkpoint")
    model.add_argument("--config-file", help="recipe, with --weights")
    model.add_argument(
        "--onnx",
        type=file_path,
        metavar="DIR",
        help="folder of exported graphs, which onnxruntime runs in place of PyTorch's detector",
    )
    parser.add_argument("--weights", type=file_path, help="file of weights")
    add_trust(parser)
    parser.add_argument("--ema", action="store_true", help="take the moving average of the weights")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "float32", "bf16", "fp16"), help="auto: "
        "bf16 on a GPU that has it, else float32"
    )  # fmt: skip
    parser.add_argument(
        "--allow-missing-cameras",
        action="store_true",
        help="cameras of rig.yaml may have no pictures",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("raise", "count"),
        default="raise",
        help="raise: a broken or missing picture file ends the run (default). count: the camera is "
        "left out of that frame",
    )
    parser.add_argument(
        "--tracker",
        choices=TRACKER_NAMES,
        help="gives objects ids that they keep: lineage (by the network's memory) or greedy (by "
        "position and velocity); docs/tracking.md",
    )
    parser.add_argument(
        "--max-gap",
        type=above_0,
        default=2.0,
        metavar="SECONDS",
        help="a longer time between two frames begins a scene (default: 2)",
    )
    parser.add_argument(
        "--frame-period",
        type=not_negative,
        metavar="SECONDS",
        help="time between frames that the memory takes; 0: all (default: that of the training; "
        "with --dataset 0, as in its evaluation)",
    )


def load_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor that the command line describes."""
    period_s = 0.0 if args.frame_period is None and args.dataset else args.frame_period
    return Predictor.load(
        args.run,
        config=args.config_file,
        weights=args.weights,
        device=args.device,
        precision=args.precision,
        ema=args.ema,
        trusted=args.trust,
        onnx=args.onnx,
        max_gap_s=args.max_gap,
        frame_period_s=period_s,
        allow_missing_cameras=args.allow_missing_cameras,
        on_bad_image=args.on_bad_image,
        tracker=args.tracker,
    )


def open_source(args: argparse.Namespace, predictor: Predictor) -> tuple[Source, list[Scene]]:
    """The moments, and the scenes of them that are played."""
    if args.folder:
        counts_bad = args.on_bad_image == "count"
        source: Source = FolderSource(args.folder, counts_bad, args.allow_missing_cameras)
        return source, choose_scenes(source, args.scenes, args.frames)
    dataset: str | dict[str, str] = args.dataset[0]
    if len(args.dataset) == 3:
        dataset = dict(zip(("root", "version", "split"), args.dataset, strict=True))
    records = open_dataset(dataset, predictor.loaded.spec)
    if args.scenes:  # a name may stand for several scenes
        records = records.select_scenes(args.scenes)
    source = NuScenesSource(records)
    return source, choose_scenes(source, most_frames=args.frames)


def settings_of(
    args: argparse.Namespace, predictor: Predictor, source: Source
) -> Mapping[str, Any]:
    """What decides the content of the results."""
    loaded = predictor.loaded
    return {
        **{f"source's {key}": value for key, value in source.description.items()},
        "device": loaded.detector.device.type,
        "precision": loaded.precision,
        **{
            name.replace("_", " "): getattr(args, name)
            for name in ("frames", "min_score", "score_threshold", "on_bad_image", "tracker")
        },
        "scenes": sorted(set(args.scenes)) if args.scenes else None,
        "max gap": args.max_gap,
        "frame period": predictor.frame_period_s,
        "write": sorted(set(args.write)),
        # Last: the precision is in its checksum too, and what is named is what differs first.
        "weights": f"{Path(loaded.weights).name} {loaded.identity[:16]}",
    }


def predict(args: argparse.Namespace) -> None:
    """Plays the drive in this process, or its share of it, and says what was written."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_sinks(args.write, args.tracker)
    predictor = load_predictor(args)
    source, scenes = open_source(args, predictor)
    record = PlayRecord(args.out)
    options = SinkOptions(args.out, record.parts, args.min_score, args.score_threshold)
    worker = Worker(comm.get_rank(), comm.get_world_size(), wait_for_main)
    sinks = build_sinks(args.write, options)
    new_frames = 0
    with Progress("frames", sum(scene.frames for scene in share(scenes, worker)), "frames") as bar:

        def shown(count: int, earlier: bool) -> None:
            nonlocal new_frames
            bar.update(count)
            new_frames += 0 if earlier else count

        play = Play(
            source,
            predictor,
            sinks,
            record,
            predictor.loaded.spec,
            replay_min_score=args.score_threshold,
            shown=shown,
        )
        started = time.perf_counter()
        settings = settings_of(args, predictor, source)
        counts = play_scenes(play, scenes, settings, worker, args.overwrite)
        seconds = time.perf_counter() - started
    total = sum(comm.all_gather(new_frames))
    if worker.rank == 0:
        written = name_list(path for sink in sinks for path in sink.outputs())
        print(summary(counts, len(scenes), written, total, seconds))


def summary(
    counts: SceneProgress, scenes: int, written: str, new_frames: int, seconds: float
) -> str:
    """What a run says in the end."""
    lines = []
    if counts.bad_pictures:
        first = "; ".join(counts.first_bad)
        bad = _count(counts.bad_pictures, "broken picture")
        lines.append(f"left out {bad}, the first: {first}")
    rate = (
        f"{new_frames / seconds:.2f} frames per second" if new_frames else "nothing was left to do"
    )
    lines.append(
        f"{written}: {_count(counts.frames, 'frame')} of {_count(scenes, 'scene')}, {rate}, "
        f"{_count(counts.scene_starts, 'scene start')}, "
        f"{_count(counts.missing_pictures, 'missing picture')}"
    )
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@one_line_errors(OmegaConfBaseException)
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool; under torchrun, as one of several processes."""
    args = parse_arguments(arguments)
    on_cpu = args.device == "cpu" or (args.onnx is not None and args.device == "auto")
    launch(predict, (args,), use_gpu=False if on_cpu else None)


if __name__ == "__main__":
    main()
