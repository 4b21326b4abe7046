"""Plays a drive of thousands of frames with tools/predict.py, and prints the memory that it needs.

The long drive is made of the pictures of a short one, by symbolic links; the car drives straight
on. In the middle the tool is killed and started again. It prints the resident memory after 100
frames and at the end of each start, and compares the files with those of a run that nothing killed,
if --compare is given.

Example:
    python benchmarks/predict_memory.py --run output/quickstart --folder my_drive --frames 10000
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from streampetr_vit.command_line import at_least, file_path
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.files import replacing
from streampetr_vit.inference.sources import FolderSource

TOOL = Path(__file__).resolve().parents[1] / "tools" / "predict.py"
STEP_S, SPEED_MPS = 0.5, 5.0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=file_path, required=True, help="folder of a training")
    parser.add_argument("--folder", type=file_path, required=True, help="of a short drive")
    parser.add_argument("--frames", type=at_least(300), default=10_000, help="default: 10000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compare", action="store_true", help="with a run that nothing kills")
    return parser.parse_args(arguments)


def make_long_drive(short: Path, folder: Path, frames: int) -> None:
    """A drive of so many frames with the pictures of a short one."""
    source = FolderSource(short)
    scene, _ = source.scenes[0]
    pictures = [moment.pictures for moment in source.frames(scene)]
    rows = []
    for index in range(frames):
        row: dict[str, object] = {"timestamp_s": 1e9 + STEP_S * index}
        row |= {"x": SPEED_MPS * STEP_S * index, "y": 0, "z": 0, "qw": 1, "qx": 0, "qy": 0, "qz": 0}
        for camera, picture in pictures[index % len(pictures)].items():
            if not isinstance(picture, Path):
                raise InputError(f"{short} has no picture file of camera {camera} in each frame")
            link = folder / camera / f"{index:06d}{picture.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(picture.resolve())
        rows.append(row)
    with replacing(folder / "rig.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(source.rig.plain(), sort_keys=False))
    with replacing(folder / "frames.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Counter:
    """Counts the lines of a growing file, each byte read once."""

    def __init__(self, out: Path) -> None:
        self._out, self._read, self.lines = out, 0, 0

    def update(self) -> int:
        """The number of lines so far."""
        for path in (self._out / "parts").glob("*.objects.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read)
                while block := file.read(2**20):
                    self._read += len(block)
                    self.lines += block.count(b"\n")
        return self.lines


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a process in MB; 0 when it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1e3 if found else 0.0


def watched(command: Sequence[str], out: Path, kill_at: int | None = None) -> None:
    """Runs the tool, prints its memory at some frames, and kills it at one of them."""
    counter, last = Counter(out), 0.0
    first = counter.update()
    marks = [first + 100, *range((first // 1000 + 1) * 1000, 10**6, 1000)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            time.sleep(0.2)
            last = resident_mb(process) or last
            frames = counter.update()
            if frames >= marks[0]:
                marks = [mark for mark in marks if mark > frames]
                print(f"frame {frames}: {last:.0f} MB", flush=True)
            if kill_at is not None and frames >= kill_at:
                process.kill()
                process.wait()
                print(f"killed after frame {frames}", flush=True)
        print(f"end of this start, frame {counter.lines}: {last:.0f} MB", flush=True)
        if kill_at is None and process.returncode:
            raise InputError(f"tools/predict.py has ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()


@one_line_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the drive, plays it with a kill in the middle, and compares."""
    args = parse_arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="predict_memory_") as name:
        folder = Path(name)
        make_long_drive(args.folder, folder / "drive", args.frames)
        command = [sys.executable, str(TOOL), "--run", str(args.run), "--device", args.device]
        command += ["--folder", str(folder / "drive"), "--write", "json", "nuscenes"]
        killed = [*command, "--out", str(folder / "killed")]
        watched(killed, folder / "killed", args.frames // 2)
        watched(killed, folder / "killed")
        if args.compare:
            watched([*command, "--out", str(folder / "whole")], folder / "whole")
            for file in ("objects.jsonl", "results_nusc.json"):
                same = filecmp.cmp(folder / "killed" / file, folder / "whole" / file, False)
                print(f"{file}: {'equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
