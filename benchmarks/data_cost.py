#!/usr/bin/env python
"""What data cost: decoding and resizing pictures, and records at the size of nuScenes trainval.

    python benchmarks/data_cost.py pictures [--input-size 640 1600 --resize 0.94 1.25]
    python benchmarks/data_cost.py records --out /tmp/scale

`pictures` compares ways on 1600x900 JPEGs, one thread. The reference of each step is what released
weights were trained with: OpenCV's decoder, then Pillow's antialiased bicubic resize of the whole
picture, then a crop. Times are CPU times, the least of five rounds.

`records` repeats the tables of two synthetic scenes until they have the real counts (850 scenes,
34,000 samples, 2.6 million records of sample_data and of ego_pose), builds the record cache in a
fresh process, opens it in another, and reads every record in several worker processes.

`tools/benchmark.py data` times whole samples.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import pickle
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from streampetr_vit.benchmark.timing import PeakMemory
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.transforms import ImageAugmentation
from synthetic_nuscenes import SyntheticConfig, generate

PICTURES, ROUNDS, SIZE, BICUBIC = 6, 5, (1600, 900), Image.Resampling.BICUBIC
Way = Callable[[int], np.ndarray]  # number of a picture -> (height, width, 3) BGR

VERSION = "v1.0-trainval"
RECORDS_PER_KEY_FRAME = 11  # of a sensor: nuScenes has 77 for twelve sensors, we have seven
SHARED = ("category", "attribute", "visibility", "sensor")  # tables that every scene refers to


def pictures(args: argparse.Namespace) -> None:
    """Prints the table of `pictures`."""
    cv2.setNumThreads(0)  # as in a loading process
    torch.set_num_threads(1)
    files = [_jpeg(seed) for seed in range(PICTURES)]
    augmentation = ImageAugmentation(args.input_size, args.resize, flip_probability=0.0)
    draws = [augmentation.draw([SIZE], np.random.default_rng(k))[0] for k in range(PICTURES)]
    decode: dict[str, Way] = {
        "OpenCV (reference)": lambda k: cv2.imdecode(np.frombuffer(files[k], np.uint8), 1),
        "Pillow": lambda k: np.asarray(Image.open(io.BytesIO(files[k])))[:, :, ::-1],
    }
    images = [decode["OpenCV (reference)"](k) for k in range(PICTURES)]

    def crop(image: np.ndarray, k: int) -> np.ndarray:
        (left, top), (height, width) = draws[k].crop_origin, draws[k].final_size
        part = image[max(top, 0) : top + height, max(left, 0) : left + width]
        canvas = np.zeros((height, width, 3), np.uint8)  # black outside of the picture
        y, x = max(-top, 0), max(-left, 0)
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
        return canvas

    def by_pillow(k: int) -> np.ndarray:
        image = Image.fromarray(images[k]).resize(draws[k].resized_size, BICUBIC)
        return crop(np.asarray(image), k)

    def by_torch(k: int) -> np.ndarray:
        image = torch.from_numpy(images[k]).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        size = draws[k].resized_size[::-1]
        image = F.interpolate(image, size=size, mode="bicubic", antialias=True)
        return crop(image[0].permute(1, 2, 0).numpy(), k)

    def by_opencv(k: int) -> np.ndarray:
        return crop(cv2.resize(images[k], draws[k].resized_size, interpolation=cv2.INTER_AREA), k)

    resize: dict[str, Way] = {
        "Pillow, whole picture (reference)": by_pillow,
        "Pillow, needed rows, then columns": lambda k: draws[k].apply(images[k]),
        "torch, antialiased bicubic on uint8": by_torch,
        "OpenCV, INTER_AREA": by_opencv,
    }
    print(f"{sum(map(len, files)) / PICTURES / 1e3:.0f} kB a picture, OpenCV {cv2.__version__}")
    for title, ways in (("decode", decode), ("resize and crop", resize)):
        print(f"\n{title:<40}{'ms':>8}  pixels")
        reference = next(iter(ways.values()))
        for name, way in ways.items():
            far = [np.abs(way(k).astype(int) - reference(k)).ravel() for k in range(PICTURES)]
            far = np.concatenate(far)
            differ = f"{100 * (far > 0).mean():.3f} % differ, by up to {far.max()}"
            milliseconds = min(_cpu_ms(way) for _ in range(ROUNDS))
            print(f"{name:<40}{milliseconds:>8.2f}  {differ if far.any() else 'equal'}")


def _jpeg(seed: int) -> bytes:
    """A picture with smooth areas, edges and texture, of about 300 kB."""
    rng, (width, height) = np.random.default_rng(seed), SIZE
    image = cv2.resize(rng.uniform(40, 215, (9, 16, 3)), SIZE, interpolation=cv2.INTER_CUBIC)
    image += cv2.GaussianBlur(rng.normal(0, 25, (height, width, 3)), (0, 0), 1.5)
    for left, top, right, bottom in rng.integers(0, 900, (40, 4)).tolist():
        cv2.rectangle(image, (left, top), (right, bottom), rng.integers(0, 255, 3).tolist(), 2)
    buffer = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _cpu_ms(way: Way) -> float:
    start = time.process_time()
    for k in range(PICTURES):
        way(k)
    return 1e3 * (time.process_time() - start) / PICTURES


def records(args: argparse.Namespace) -> None:
    """Prints the table of `records`."""
    write_tables(args.out, args.scenes)
    total = sum(path.stat().st_size for path in (args.out / VERSION).iterdir())
    print(f"tables: {total / 1e9:.2f} GB")
    runs, spawn = {}, multiprocessing.get_context("spawn")
    for step in ("built", "opened"):  # each in a fresh process
        with ProcessPoolExecutor(1, spawn) as pool:
            runs[step] = pool.submit(open_records, args.out).result()
    with ProcessPoolExecutor(args.workers, spawn) as pool:
        shares = [pool.submit(read_share, args.out, n, args.workers) for n in range(args.workers)]
        runs |= {f"worker {n}": share.result() for n, share in enumerate(shares)}
    for name, values in runs.items():
        print(f"{name}: {', '.join(f'{key} {value:.5g}' for key, value in values.items())}")
    shutil.rmtree(args.out)


def write_tables(root: Path, scenes: int) -> None:
    """Writes tables without pictures into `root`."""
    with tempfile.TemporaryDirectory() as folder:
        config = SyntheticConfig(1, 1, frames=40, image_width=64, image_height=36, range_m=51)
        source = generate(config, Path(folder)) / config.version
        tables = {path.stem: json.loads(path.read_text()) for path in source.glob("*.json")}
    tables.pop("splits", None)  # no table
    for table in ("sample_data", "ego_pose"):
        sweeps = range(1, RECORDS_PER_KEY_FRAME)
        tables[table] += [_sweep(row, n) for row in tables[table] for n in sweeps]
    own = {row["token"] for name, rows in tables.items() if name not in SHARED for row in rows}
    first = min(row["timestamp"] for row in tables["ego_pose"])

    def marked(found: re.Match[str]) -> str:
        return f'"@@@@{found[1][4:]}"' if found[1] in own else found[0]

    def later(found: re.Match[str]) -> str:
        return f'"timestamp": ####{int(found[1]) - first:09d}'

    (root / VERSION).mkdir(parents=True)
    for name, rows in tables.items():
        text, copies = json.dumps(rows)[1:-1], 1
        if name not in SHARED:
            # What differs from copy to copy becomes a mark: four digits of a token, and seconds.
            text = re.sub(r'"([0-9a-f]{32})"', marked, text.replace('"name": "', '"name": "@@@@ '))
            text, copies = re.sub(r'"timestamp": (\d+)', later, text), scenes // 2
        with (root / VERSION / f"{name}.json").open("w") as file:
            for copy in range(copies):
                file.write(", " if copy else "[")
                file.write(text.replace("@@@@", f"{copy:04x}").replace("####", f"{1600000 + copy}"))
            file.write("]")


def _sweep(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A record of the same sensor between two key frames."""
    names = [name for name in ("token", "ego_pose_token") if name in row]
    # Read backwards, a token is another one than that of the key frame, whatever its end.
    changed = {name: f"{row[name][:1:-1]}{number:02x}" for name in names}
    changed["timestamp"] = row["timestamp"] + 45_000 * number
    return {**row, **changed, **({"is_key_frame": False} if "is_key_frame" in row else {})}


def open_records(root: Path) -> dict[str, float]:
    """Builds or opens the cache: what was opened, seconds, and the peak memory of this process."""
    memory = PeakMemory(torch.device("cpu"))
    wall, cpu = time.perf_counter(), time.process_time()
    found = load_records(root, VERSION)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_gib": memory.gib() or math.nan,
        "frames": len(found),
        "boxes": int(found.boxes_per_class().sum()),
        "file_mb": found.path.stat().st_size / 1e6,
        "pickled_kb": len(pickle.dumps(found)) / 1e3,
    }


def read_share(root: Path, worker: int, workers: int) -> dict[str, float]:
    """Reads a worker's share of the records; growth of its memory, and records per second."""
    before = _memory_mb()
    found = load_records(root, VERSION)
    start, share = time.perf_counter(), range(worker, len(found), workers)
    for index in share:
        found[index].gt_boxes.sum()
    rate = len(share) / (time.perf_counter() - start)
    grown = {name: value - before[name] for name, value in _memory_mb().items()}
    return {**grown, "records_per_s": rate}


def _memory_mb() -> dict[str, float]:
    """Memory of this process that no other can share, and pages of files that others can."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    mapped = kb["Shared_Clean"] + kb["Private_Clean"]
    return {"private_mb": kb["Private_Dirty"] / 1e3, "mapped_mb": mapped / 1e3}


def main() -> None:
    """Runs one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("pictures").add_argument
    add("--input-size", type=int, nargs=2, default=(320, 800), metavar=("H", "W"))
    add("--resize", type=float, nargs=2, default=(0.47, 0.625), metavar=("LOW", "HIGH"))
    add = commands.add_parser("records").add_argument
    add("--out", type=Path, required=True, help="new folder for 3 GB of tables")
    add("--scenes", type=int, default=850, help="an even number; default: 850")
    add("--workers", type=int, default=4)
    args = parser.parse_args()
    pictures(args) if hasattr(args, "resize") else records(args)


if __name__ == "__main__":
    main()
