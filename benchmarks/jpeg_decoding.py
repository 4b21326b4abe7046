#!/usr/bin/env python
"""Ways to decode, resize and lay out a camera's picture: pictures per second, and equal pixels?

    python benchmarks/jpeg_decoding.py
    python benchmarks/jpeg_decoding.py --input-size 640 1600 --resize 0.94 1.25
    python benchmarks/jpeg_decoding.py --pictures some/folder/of/jpegs

The reference of each step is what released weights were trained with: OpenCV's decoder, then
Pillow's antialiased bicubic resize of the whole picture, then a crop. One thread, and the steps
apart: every resize gets the reference's decoded picture. Times are CPU times, the least of some
rounds over all pictures. `benchmarks/mapper_cost.py` times whole samples.
"""

from __future__ import annotations

import argparse
import io
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image

from streampetr_vit.data.image_io import read_image
from streampetr_vit.data.resized_crop import resized_crop
from streampetr_vit.data.transforms import ImageAugmentation, ImageDraw

BICUBIC = Image.Resampling.BICUBIC
Way = Callable[[int], np.ndarray]  # number of a picture -> (height, width, 3) BGR, or (3, H, W) RGB


def synthetic_jpeg(seed: int, size: tuple[int, int] = (1600, 900), quality: int = 90) -> bytes:
    """A picture with smooth areas, edges and texture, as JPEG."""
    rng, (width, height) = np.random.default_rng(seed), size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [128 + 90 * np.sin(x / 300 + seed + c) + 30 * np.cos(y / 120 + c) for c in range(3)]
    image = np.stack(waves, axis=-1)
    coarse = rng.normal(0, 40, (height // 10, width // 10, 3)).astype(np.float32)
    image += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0, 25, image.shape).astype(np.float32)
    image += cv2.GaussianBlur(fine, (0, 0), 1.5)
    for _ in range(40):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        right, bottom = left + int(rng.integers(10, 200)), top + int(rng.integers(10, 120))
        cv2.rectangle(image, (left, top), (right, bottom), rng.integers(0, 255, 3).tolist(), -1)
    buffer = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def shown(draw: ImageDraw) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what the crop sees of the resized picture."""
    (x, y), (height, width), size = draw.crop_origin, draw.final_size, draw.resized_size
    return max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])


def decoders(files: Sequence[bytes], draws: Sequence[ImageDraw]) -> dict[str, Way]:
    """The reference first. Pictures that are not of the full size have no equal pixels."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def by_opencv(k: int) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(files[k], np.uint8), flags)

    def by_pillow(k: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[k])))[:, :, ::-1]

    def by_pillow_draft(k: int) -> np.ndarray:
        image = Image.open(io.BytesIO(files[k]))
        image.draft("RGB", draws[k].resized_size)
        return np.asarray(image)[:, :, ::-1]

    ways: dict[str, Way] = {
        "OpenCV (reference)": by_opencv,
        "Pillow": by_pillow,
        "Pillow, draft to the resized size": by_pillow_draft,
    }
    try:
        # The compiled part can be missing, or be another torch's.
        from torchvision.io import ImageReadMode, decode_jpeg

        def by_torchvision(k: int) -> np.ndarray:
            data = torch.frombuffer(bytearray(files[k]), dtype=torch.uint8)
            return decode_jpeg(data, ImageReadMode.RGB).numpy()[::-1].transpose(1, 2, 0)

        by_torchvision(0)
        ways["torchvision"] = by_torchvision
    except (ImportError, RuntimeError) as error:
        print(f"torchvision decodes nothing here: {str(error).splitlines()[0]}")
    return ways


def resizers(images: Sequence[np.ndarray], draws: Sequence[ImageDraw]) -> dict[str, Way]:
    """Resize and crop; the reference first. No flips."""

    boxes = [shown(draw) for draw in draws]

    def crop(image: np.ndarray, k: int) -> np.ndarray:
        left, top, right, bottom = boxes[k]
        return image[top:bottom, left:right]

    def whole(k: int, reducing_gap: float | None = None) -> np.ndarray:
        image = Image.fromarray(images[k])
        image = image.resize(draws[k].resized_size, BICUBIC, reducing_gap=reducing_gap)
        return crop(np.asarray(image), k)

    def by_box(k: int) -> np.ndarray:
        image = Image.fromarray(images[k])
        left, top, right, bottom = boxes[k]
        across, down = (a / b for a, b in zip(image.size, draws[k].resized_size, strict=True))
        box = (left * across, top * down, right * across, bottom * down)
        return np.asarray(image.resize((right - left, bottom - top), BICUBIC, box=box))

    def by_planes(k: int) -> np.ndarray:
        planes = [Image.fromarray(plane) for plane in cv2.split(images[k])]
        resized = [plane.resize(draws[k].resized_size, BICUBIC) for plane in planes]
        return crop(np.stack([np.asarray(plane) for plane in resized], axis=-1), k)

    def by_torch(k: int) -> np.ndarray:
        width, height = draws[k].resized_size
        image = torch.from_numpy(images[k]).permute(2, 0, 1)[None]
        image = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
        return crop(image[0].permute(1, 2, 0).numpy(), k)

    def by_opencv(k: int) -> np.ndarray:
        return crop(cv2.resize(images[k], draws[k].resized_size, interpolation=cv2.INTER_AREA), k)

    return {
        "Pillow, whole picture (reference)": whole,
        "Pillow, needed rows, then columns": lambda k: resized_crop(
            images[k], draws[k].resized_size, boxes[k]
        ),
        "Pillow, box= of the crop": by_box,
        "Pillow, reducing_gap=1.1": lambda k: whole(k, 1.1),
        "Pillow, one plane at a time": by_planes,
        "torch, antialiased bicubic on uint8": by_torch,
        "OpenCV, INTER_AREA": by_opencv,
    }


def layouts(images: Sequence[np.ndarray]) -> dict[str, Way]:
    """(H, W, 3) BGR to (3, H, W) RGB; the reference first."""
    target = np.empty((3, *images[0].shape[:2]), np.uint8)

    def by_strides(k: int) -> np.ndarray:
        target[:] = images[k][:, :, ::-1].transpose(2, 0, 1)
        return target

    def by_split(k: int) -> np.ndarray:
        red, green, blue = target
        cv2.split(images[k], [blue, green, red])
        return target

    return {"numpy strides (reference)": by_strides, "OpenCV split": by_split}


def readers(files: Sequence[bytes], folder: Path) -> dict[str, Way]:
    """Reading from the page cache, with and without decoding and checks."""
    paths = [folder / f"{k}.jpg" for k in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    size = Image.open(paths[0]).size
    return {
        "read_image: bytes, checks, decoding": lambda k: read_image(paths[k], size),
        "the bytes alone": lambda k: np.frombuffer(paths[k].read_bytes(), np.uint8),
    }


def report(title: str, ways: dict[str, Way], count: int, rounds: int, compare: bool = True) -> None:
    """Prints a table; the first way is what the others are compared with."""
    print(f"\n{title:<40}{'ms':>8}{'per s':>8}  pixels")
    reference = next(iter(ways.values()))
    for name, way in ways.items():
        same = _difference([(way(k).copy(), reference(k).copy()) for k in range(count)])
        times = []
        for _ in range(rounds):
            started = time.process_time()
            for k in range(count):
                way(k)
            times.append((time.process_time() - started) / count)
        print(
            f"{name:<40}{1e3 * min(times):>8.2f}{1 / min(times):>8.0f}  {same if compare else ''}"
        )


def _difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    if any(found.shape != expected.shape for found, expected in pairs):
        return "another size"
    distances = np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in pairs])
    if not distances.any():
        return "equal"
    return f"{100 * (distances > 0).mean():.3f} % differ, by up to {distances.max()}"


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs of one size")
    parser.add_argument("--count", type=int, default=6, help="pictures, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--input-size", type=int, nargs=2, default=(320, 800), metavar=("H", "W"))
    parser.add_argument("--resize", type=float, nargs=2, default=(0.47, 0.625))
    parser.add_argument("--scratch", type=Path, required=False, help="folder for a reading test")
    args = parser.parse_args()
    cv2.setNumThreads(0)  # as in a loading process
    torch.set_num_threads(1)
    if args.pictures:
        files = [path.read_bytes() for path in sorted(args.pictures.glob("*.jpg"))[: args.count]]
    else:
        files = [synthetic_jpeg(seed) for seed in range(args.count)]
    if not files:
        parser.error(f"--pictures {args.pictures} holds no *.jpg")
    size = Image.open(io.BytesIO(files[0])).size
    augmentation = ImageAugmentation(args.input_size, args.resize, flip_probability=0.0)
    draws = [augmentation.draw(size, np.random.default_rng(k)) for k in range(len(files))]
    kilobytes = sum(map(len, files)) / len(files) / 1e3
    print(
        f"{len(files)} pictures of {size[0]}x{size[1]}, {kilobytes:.0f} kB; Python "
        f"{platform.python_version()}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}, torch "
        f"{torch.__version__}, {time.strftime('%F')}"
    )
    count, rounds, (low, high) = len(files), args.rounds, args.resize
    decode = decoders(files, draws)
    report("decoding", decode, count, rounds)
    images = [decode["OpenCV (reference)"](k) for k in range(count)]
    title = f"resize by {low} to {high}, crop"
    report(title, resizers(images, draws), count, rounds)
    resized = [draw.apply(image) for image, draw in zip(images, draws, strict=True)]
    report("to planes", layouts(resized), count, rounds)
    if args.scratch:
        report("files", readers(files, args.scratch), count, rounds, compare=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
