"""Writes the three graphs of a detector as ONNX files."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from streampetr_vit.export.description import Description
from streampetr_vit.export.frames import Mounting
from streampetr_vit.export.graphs import make_graphs
from streampetr_vit.export.interface import BACKBONE, Interface, Ports
from streampetr_vit.export.optional import need_exporter
from streampetr_vit.files import replacing
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import cast_weights

logger = logging.getLogger(__name__)

OPSET = 18  # LayerNormalization is of 17, GridSample of 16; TensorRT 8.6 reads it


def export_graphs(detector: StreamPETR, description: Description, folder: Path) -> Interface:
    """Writes the three graphs into a folder, each with the description as its metadata.

    Args:
        detector: that `checking.check_exportable` has let through. It stays as it is.
        description: whose cameras, image size, frame and precision the graphs get.

    Raises:
        InputError: a package of the extra `export` is missing.
        OutputError: a file cannot be written.
    """
    need_exporter()
    mounting = Mounting(description.lidar_to_graph_matrix())
    # A copy: what the modules remember of an export is not to stay in the caller's detector.
    detector = copy.deepcopy(detector)
    graphs = make_graphs(detector, len(description.cameras), description.image_size, mounting)
    interface, metadata = graphs.interface, description.to_metadata()
    half = description.precision == "fp16-backbone"
    if half:
        _to_half(detector.backbone)
    modules = (graphs.backbone, graphs.position, graphs.head)
    for (name, ports), module in zip(interface.graphs.items(), modules, strict=True):
        started = time.perf_counter()
        # Autocast writes its casts into the graph, so that no runtime has to guess.
        precision = torch.autocast("cpu", torch.float16, enabled=half and name == BACKBONE)
        with replacing(folder / name) as path, precision:
            _write(module, ports, metadata, path)
        size = (folder / name).stat().st_size / 1e6
        seconds = time.perf_counter() - started
        logger.info("%s: %.1f MB in %.0f s", name, size, seconds)
    return interface


def _to_half(backbone: nn.Module) -> None:
    """Makes weights float16 in place, and norms such that they compute in float32."""
    cast_weights(backbone, torch.float16)
    for module in backbone.modules():
        # Autocast does so on GPUs, and not on CPUs, where graphs are traced.
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))


@torch.no_grad()
def _write(module: nn.Module, ports: Ports, metadata: dict[str, str], path: Path) -> None:
    examples: tuple[Tensor, ...] = tuple(torch.zeros(shape) for shape in ports.inputs.values())
    with _quiet():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(ports.inputs),
            output_names=list(ports.outputs),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on operators that it leaves as they are."""
    names = ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
