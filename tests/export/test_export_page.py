"""What docs/export.md shows: its program runs, and its tables are those of the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import export_onnx
import numpy as np
import pytest
import torch
from exported import Export
from nuscenes_export import INTERFACE
from tiny_detector import HEIGHT, WIDTH, make_repdetr3d, make_sample

from streampetr_vit.export import interface
from streampetr_vit.export.frames import Mounting
from streampetr_vit.export.graphs import make_graphs
from streampetr_vit.structures import Frame

DOCS = Path(__file__).resolve().parents[2] / "projects" / "StreamPETR_ViT" / "docs"
PAGE = (DOCS / "export.md").read_text()
LETTERS = {"N": 6, "H": 320, "W": 800, "h": 20, "w": 50, "T": 6000, "E": 256}
LETTERS |= {"P": 1024, "R": 1280, "Q": 900, "K": 10}


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its kind."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_program_of_the_page_gives_what_pytorch_gives(
    exported: Callable[[str], Export],
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", section("The memory, outside the graph"), re.S)
    export = exported("lidar")
    detector = export.detector
    samples = [make_sample(time, continues=time not in (0, 3)) for time in range(5)]
    known, found = {"folder": export.folder}, []
    rig = Frame.collate(samples[:1]).rig
    known["intrinsics"] = rig.intrinsics.numpy()
    known["img2lidar"] = rig.lidar_to_image.double().inverse().float().numpy()

    def frames() -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        mean, std = detector.pixel_mean, detector.pixel_std
        for time, sample in enumerate(samples):
            pose = sample.lidar_to_global.clone()
            pose[0, 3] -= samples[0].lidar_to_global[0, 3]  # the global frame begins near the drive
            if not sample.continues_stream and time:  # a new scene, as the page says
                known["memory"] = {k: np.zeros_like(v) for k, v in known["memory"].items()}
            yield ((sample.images - mean) / std)[None].numpy(), pose.numpy(), 0.5 * time
            # Here the program has dealt with the frame.
            found.append([known[name] for name in ("scores", "codes", "sizes", "yaws")])

    known["frames"] = frames()
    exec(program, known)
    memory = detector.empty_memory(1)
    assert len(found) == len(samples)
    for sample, (scores, codes, sizes, yaws) in zip(samples, found, strict=True):
        with torch.no_grad():
            output, memory = detector.step(Frame.collate([sample]), memory)
        expected = output.codes[-1, 0].numpy()  # (Q, 10)
        np.testing.assert_allclose(scores.T, output.logits[-1, 0].sigmoid(), atol=1e-5)
        np.testing.assert_allclose(codes.T, expected, atol=1e-4)
        np.testing.assert_allclose(np.log(sizes.T), expected[:, 3:6], atol=1e-4)
        np.testing.assert_allclose(yaws, np.arctan2(expected[:, 6], expected[:, 7]), atol=0.01)


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and shape of each tensor in the tables of a text."""
    for kind, names, shapes in re.findall(
        r"^\| (?:(in|out) \| )?(`[^|]+) \| ([^|]+) \|", text, re.M
    ):
        found = re.findall(r"\([^()]*\)", shapes)
        named = re.findall(r"`(\w+)`", names)
        yield from ((kind, name, shape) for name, shape in zip(named, found * 2, strict=False))


def sizes_of(shape: str, letters: dict[str, int]) -> tuple[int, ...]:
    """(1, 2 E) with numbers."""
    sides = [side.split() for side in shape.strip("()").split(",") if side]
    return tuple(int(np.prod([letters.get(s) or int(s) for s in side])) for side in sides)


def test_the_tables_are_the_interface() -> None:
    letters = section("The interface").split("\n\n")[0]
    for name, size in LETTERS.items():
        assert re.search(rf"\b{name}\b", letters) and str(size) in letters
    backbone, position, head = re.split(
        r"Position embedding, once|Head, for", section("The interface")
    )
    texts = (backbone, position, head)
    for text, graph in zip(texts, INTERFACE.graphs.values(), strict=True):
        for kind, shapes in (("in", graph.inputs), ("out", graph.outputs)):
            table = {name: sizes_of(shape, LETTERS) for k, name, shape in rows(text) if k == kind}
            assert table == dict(shapes)


def test_the_table_of_repdetr3d_is_its_interface() -> None:
    detector = make_repdetr3d().eval()
    found = make_graphs(detector, 6, (HEIGHT, WIDTH), Mounting(np.eye(4))).interface
    table = {name: shape for _, name, shape in rows(section("RepDETR3D"))}
    letters = {"N": found.cameras, "E": found.embed_dim, "S": found.features[-1]}
    shapes = {name: sizes_of(shape, letters) for name, shape in table.items()}
    assert shapes == {
        "img_feats": found.features,
        "x": found.features,
        "pos_embed": found.position,
        "cone": found.cone,
    }


def test_every_file_of_the_folder_is_named() -> None:
    table = set(re.findall(r"^\| `([\w.]+)` \|", section("Export"), re.M))
    assert table == {*interface.GRAPHS, interface.PARAMETERS, interface.PARITY, interface.CONFIG}
    assert set(re.findall(r"--onnx=(\S+)", section("TensorRT"))) == set(interface.GRAPHS)


def test_the_options_of_the_page_are_those_of_the_tool(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export_onnx.parse_arguments(["--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    table = re.findall(r"^\| `(--[\w-]+)(?: ([^`]+))?` \|", section("Export"), re.M)
    for name, values in table:
        choices = f" {{{values.replace(', ', ',')}}}" if values else ""
        assert f"[{name}{choices}]" in " ".join(usage.split())
    named = {name for name, _ in table} | {"--run", "--config-file", "--weights", "--out"}
    assert {*re.findall(r"--[\w-]+", usage)} == named | {"--trust"}
