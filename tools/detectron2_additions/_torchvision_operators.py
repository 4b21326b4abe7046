"""Lets torchvision be imported beside a torch that cannot load torchvision's compiled extension.

torchvision registers the fake (shape-only) kernels of ``nms`` and ``qnms`` whether or not its
extension was loaded, and the registration fails when nobody has defined the two operators. That
is what happens with a CPU build of torch beside a torchvision whose extension links the CUDA
libraries. Defining the schemas first is enough for the import; calling one of the operators still
raises torchvision's own "Couldn't load custom C++ ops" error. On a sound pair nothing is done.
"""

import importlib.util
import sys
from pathlib import Path

import torch

SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def extension_loads() -> bool:
    """Whether torchvision's compiled operators can be had; True too where there is no torchvision.

    torchvision itself is not imported: only its shared library is found and loaded, the way
    torchvision does it a moment later.
    """
    if "torchvision" in sys.modules:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for library in sorted(Path(spec.origin).parent.glob("_C*")):
        if library.suffix not in (".so", ".pyd", ".dylib"):
            continue
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


def define_missing_schemas() -> list[str]:
    """Define the two schemas if the extension cannot be loaded.

    Returns:
        The qualified names of the operators that were defined (empty on a sound pair).
    """
    if extension_loads():
        return []
    defined = []
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name.rpartition(":")[2]):
            torch.library.define(name, schema)
            defined.append(name)
    return defined


DEFINED = define_missing_schemas()
