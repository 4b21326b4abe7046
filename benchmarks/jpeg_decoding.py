#!/usr/bin/env python
"""Ways to decode and resize a camera's picture: their time, and equal pixels?

    python benchmarks/jpeg_decoding.py [--input-size 640 1600 --resize 0.94 1.25]

The reference of each step is what released weights were trained with: OpenCV's decoder, then
Pillow's antialiased bicubic resize of the whole picture, then a crop. One thread; CPU times, the
least of some rounds over all pictures. `tools/benchmark.py data` times whole samples.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import cv2
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image

from streampetr_vit.data.transforms import ImageAugmentation

BICUBIC, SIZE = Image.Resampling.BICUBIC, (1600, 900)
Way = Callable[[int], np.ndarray]  # number of a picture -> (height, width, 3) BGR


def synthetic_jpeg(seed: int) -> bytes:
    """A picture with smooth areas, edges and texture, as JPEG of about 300 kB."""
    rng, (width, height) = np.random.default_rng(seed), SIZE
    image = cv2.resize(rng.uniform(40, 215, (9, 16, 3)), SIZE, interpolation=cv2.INTER_CUBIC)
    image += cv2.GaussianBlur(rng.normal(0, 25, (height, width, 3)), (0, 0), 1.5)
    for left, top, right, bottom in rng.integers(0, 900, (40, 4)).tolist():
        cv2.rectangle(image, (left, top), (right, bottom), rng.integers(0, 255, 3).tolist(), 2)
    buffer = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def report(title: str, ways: dict[str, Way], count: int, rounds: int) -> None:
    """Prints a table; the first way is what the others are compared with."""
    print(f"\n{title:<40}{'ms':>8}  pixels")
    reference = next(iter(ways.values()))
    for name, way in ways.items():
        far = np.concatenate(
            [np.abs(way(k).astype(int) - reference(k)).ravel() for k in range(count)]
        )
        equal = f"{100 * (far > 0).mean():.3f} % differ, by up to {far.max()}"
        times = []
        for _ in range(rounds):
            started = time.process_time()
            for k in range(count):
                way(k)
            times.append((time.process_time() - started) / count)
        print(f"{name:<40}{1e3 * min(times):>8.2f}  {equal if far.any() else 'equal'}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=6, help="pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--input-size", type=int, nargs=2, default=(320, 800), metavar=("H", "W"))
    parser.add_argument("--resize", type=float, nargs=2, default=(0.47, 0.625))
    args = parser.parse_args()
    cv2.setNumThreads(0)  # as in a loading process
    torch.set_num_threads(1)
    files = [synthetic_jpeg(seed) for seed in range(args.count)]
    augmentation = ImageAugmentation(args.input_size, args.resize, flip_probability=0.0)
    draws = [augmentation.draw(SIZE, np.random.default_rng(k)) for k in range(args.count)]
    decode: dict[str, Way] = {
        "OpenCV (reference)": lambda k: cv2.imdecode(np.frombuffer(files[k], np.uint8), 1),
        "Pillow": lambda k: np.asarray(Image.open(io.BytesIO(files[k])))[:, :, ::-1],
    }
    images = [decode["OpenCV (reference)"](k) for k in range(args.count)]

    def crop(image: np.ndarray, k: int) -> np.ndarray:
        (left, top), (height, width) = draws[k].crop_origin, draws[k].final_size
        return image[top : top + height, left : left + width]

    def by_pillow(k: int) -> np.ndarray:
        return crop(
            np.asarray(Image.fromarray(images[k]).resize(draws[k].resized_size, BICUBIC)), k
        )

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
    versions = f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}, torch {torch.__version__}"
    kilobytes = sum(map(len, files)) / len(files) / 1e3
    print(f"{kilobytes:.0f} kB a picture; {versions}, {time.strftime('%F')}")
    report("decode", decode, args.count, args.rounds)
    report("resize and crop", resize, args.count, args.rounds)


if __name__ == "__main__":
    main()
