"""The three graphs of one export, opened with onnxruntime."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from streampetr_vit.errors import InputError, MissingFileError, one_line
from streampetr_vit.export import optional
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import BACKBONE, GRAPHS, HEAD, POSITION, Interface, Ports
from streampetr_vit.texts import name_list, shown

_FLOAT = "tensor(float)"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ANEW = "export the three graphs anew with tools/export_onnx.py"


@dataclass(frozen=True)
class Sessions:
    """Runs the graphs on arrays of the host.

    Attributes:
        description: what the graphs say of themselves.
        interface: the shapes of their inputs and outputs.
    """

    description: Description
    interface: Interface
    _backbone: Any
    _position: Any
    _head: Any

    @staticmethod
    def open(
        folder: str | os.PathLike[str], device: str = "cpu", threads: int | None = None
    ) -> Sessions:
        """Opens the three files of a folder, and checks that they are of one export.

        Args:
            folder: that tools/export_onnx.py has written.
            device: "cpu", or "auto", which is the same; "cuda" or "cuda:N".
            threads: of the CPU; None takes as many as torch does.

        Raises:
            MissingFileError: no folder, or a file is missing.
            InputError: a file is damaged, does not have the interface, or is of another export than
                the others; or onnxruntime is not there, or does not have the device.
        """
        library, folder = optional.onnxruntime(), Path(folder).expanduser()
        providers = _providers(library, device)
        options = _options(library, threads or torch.get_num_threads())
        paths = {name: folder / name for name in GRAPHS}
        for path in paths.values():  # of all, before a large one is read
            if not path.is_file():
                raise MissingFileError(
                    f"{path} does not exist: give a folder that tools/export_onnx.py has written"
                )
        opened = {name: _opened(library, path, options, providers) for name, path in paths.items()}
        description = _common_description(opened, paths)
        interface = _interface(opened, paths)
        _check_description(description, interface, folder)
        return Sessions(description, interface, *(opened[name] for name in GRAPHS))

    def backbone(self, img: np.ndarray) -> np.ndarray:
        """Pictures to features, see `Interface.backbone`."""
        (features,) = self._backbone.run(["img_feats"], {"img": img})
        return features

    def position(
        self, img_metas_pad: np.ndarray, intrinsics: np.ndarray, img2lidar: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cameras to `pos_embed` and `cone`, see `Interface.position_embedding`."""
        inputs = dict(img_metas_pad=img_metas_pad, intrinsics=intrinsics, img2lidar=img2lidar)
        position, cone = self._position.run(["pos_embed", "cone"], inputs)
        return position, cone

    def head(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All inputs to all outputs by their names, see `Interface.head`."""
        names = list(self.interface.head.outputs)
        return dict(zip(names, self._head.run(names, inputs), strict=True))


def _providers(library: ModuleType, device: str) -> list[Any]:
    """What onnxruntime shall compute with."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", str(device)):
        raise InputError(
            f'device={shown(device)} is unknown: allowed are "auto", "cpu", "cuda" and "cuda:N"'
        )
    if not str(device).startswith("cuda"):
        return [_CPU]
    if _CUDA not in library.get_available_providers():
        raise InputError(
            f"device={device!r}, but onnxruntime {library.__version__} is a build without CUDA: "
            "give cpu, or install onnxruntime-gpu in its place"
        )
    # TF32 would take 13 bits of each factor, and more than the fourth digit of the results.
    cuda = {"device_id": int(str(device).partition(":")[2] or 0), "use_tf32": 0}
    return [(_CUDA, cuda), _CPU]


def _options(library: ModuleType, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # The graphs and torch run in turns: threads that wait busily for the next call would take the
    # cores away from whoever has the turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _opened(library: ModuleType, path: Path, options: Any, providers: list[Any]) -> Any:
    try:
        session = library.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # each kind is a class of its own, without a common base
        raise InputError(
            f"{path} cannot be opened by onnxruntime {library.__version__} ({one_line(error)}): "
            f"{_ANEW}"
        ) from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():  # it goes on with the CPU, and only warns
        raise InputError(
            f"onnxruntime {library.__version__} cannot start {wanted}, which its log explains: "
            "give cpu as device, or install the CUDA and cuDNN that it needs"
        )
    return session


def _common_description(opened: Mapping[str, Any], paths: Mapping[str, Path]) -> Description:
    found = {
        name: Description.of_metadata(session.get_modelmeta().custom_metadata_map, str(paths[name]))
        for name, session in opened.items()
    }
    first = found[BACKBONE]
    for name in (POSITION, HEAD):
        if difference := first.difference(found[name]):
            field, ours, other = difference
            raise InputError(
                f"{paths[name]} is of another export than {BACKBONE}: its {field} is "
                f"{shown(other)}, not {shown(ours)}; {_ANEW}"
            )
    return first


def _interface(opened: Mapping[str, Any], paths: Mapping[str, Path]) -> Interface:
    """The interface that all shapes of the graphs agree with."""
    ports = {name: _ports(session, paths[name]) for name, session in opened.items()}

    def shape(graph: str, name: str, rank: int) -> tuple[int, ...]:
        tensors = {**ports[graph].inputs, **ports[graph].outputs}
        if len(tensors.get(name, ())) != rank:
            given = f"the shape {tensors[name]}" if name in tensors else "no shape"
            raise InputError(
                f"{paths[graph]}: {name} has {given}, not one of {rank} numbers: {_ANEW}"
            )
        return tensors[name]

    _, cameras, _, height, width = shape(BACKBONE, "img", 5)
    _, memory_in, embed_dim = shape(HEAD, "pre_memory_embedding", 3)
    _, classes, queries = shape(HEAD, "all_cls_scores", 3)
    tensors = ports[POSITION].outputs
    interface = Interface(
        cameras=cameras,
        image_size=(height, width),
        features=ports[BACKBONE].outputs.get("img_feats", ()),
        position=tensors.get("pos_embed", ()),
        cone=tensors.get("cone", ()),
        embed_dim=embed_dim,
        memory_in=memory_in,
        memory_out=shape(HEAD, "post_memory_embedding", 3)[1],
        queries=queries,
        classes=classes,
    )
    for name, wanted in interface.graphs.items():
        _check_ports(ports[name], wanted, paths[name])
    return interface


def _ports(session: Any, path: Path) -> Ports:
    """Names and shapes of a graph's inputs and outputs, which must all be float32."""
    both = session.get_inputs(), session.get_outputs()
    for tensor in (*both[0], *both[1]):
        if tensor.type != _FLOAT:
            raise InputError(f"{path}: {tensor.name} is a {tensor.type}, not a {_FLOAT}: {_ANEW}")
    inputs, outputs = ({tensor.name: tuple(tensor.shape) for tensor in part} for part in both)
    return Ports(inputs, outputs)


def _check_ports(found: Ports, wanted: Ports, path: Path) -> None:
    for kind in ("inputs", "outputs"):
        has, shall = getattr(found, kind), getattr(wanted, kind)
        if set(has) != set(shall):
            raise InputError(
                f"{path} has the {kind} {name_list(has)}, not {name_list(shall)}: {_ANEW}"
            )
        for name, shape in shall.items():
            if has[name] != shape:
                raise InputError(
                    f"{path}: {name} has the shape {has[name]}, and with the other graphs it "
                    f"must have {shape}: {_ANEW}"
                )


def _check_description(description: Description, interface: Interface, folder: Path) -> None:
    """Compares what the graphs say with what they are."""
    pairs = {
        "cameras": (len(description.cameras), interface.cameras),
        "classes": (len(description.classes), interface.classes),
        "image_size": (description.image_size, interface.image_size),
        "num_remembered": (description.num_remembered, interface.memory_out - interface.memory_in),
    }
    for name, (said, found) in pairs.items():
        if said != found:
            raise InputError(
                f"the graphs in {folder} say {said} as {name}, and have {found}: {_ANEW}"
            )
    learned, queries = description.num_queries, interface.queries
    if not learned <= queries <= learned + interface.memory_in:
        raise InputError(
            f"the graphs in {folder} say {learned} as num_queries, and have {queries} with those "
            f"of a memory of {interface.memory_in}: {_ANEW}"
        )
