"""Installs the packages ``streampetr_vit`` and ``synthetic_nuscenes`` from projects/StreamPETR_ViT.

The ranges say what may work together; constraints.txt holds the versions that were tested.
detectron2 is not among the requirements: the package index does not have it under its own name,
tools/install_detectron2.py brings it.
"""

from setuptools import find_packages, setup

PROJECT = "projects/StreamPETR_ViT"

RUNTIME = [
    # The network. torchvision is imported by detectron2 only.
    "torch>=2.10,<2.16",
    "torchvision>=0.25",
    # Geometry, matching (scipy's assignment solver), checkpoints. nuscenes-devkit needs numpy<2.
    "numpy>=1.26,<2",
    "scipy>=1.11",
    "safetensors>=0.4",
    # The data set and its official metric.
    "nuscenes-devkit>=1.2,<1.3",
    # Images: read and resized as the reference does it; opencv 4.12 and later need numpy 2.
    "Pillow>=10",
    "opencv-python-headless>=4.8,<4.12",
    # Logs, tables, pictures.
    "matplotlib>=3.8",
    "tabulate>=0.9",
    "tensorboard>=2.15",
    "tqdm>=4.65",
    # Configuration and the base of detectron2's engine.
    "fvcore>=0.1.5.post20221221,<0.1.6",
    "iopath>=0.1.9",
    "omegaconf>=2.3,<2.4",
    "hydra-core>=1.3,<1.4",
    # What else detectron2's Python files import; black formats the configs that it prints.
    "pycocotools>=2.0.6",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "cloudpickle>=2",
    "pydot>=1.4",
    "black>=23",
]

EXTRAS = {
    "dev": ["pytest>=8", "ruff>=0.9", "mypy>=1.14"],
    # The devkit's tracking metric. In one pip run with the rest: alone, pandas may bring numpy 2.
    "tracking": ["motmetrics>=1.4,<1.5", "pandas>=2.1"],
    # Videos as H.264. Without it OpenCV writes MPEG-4, which browsers do not play.
    "video": ["av>=15,<20"],
    # Recordings for rerun's viewer, which loads those of 0.23 and later. From 0.23.2 on rerun-sdk
    # needs numpy 2, and pyarrow 26 does without saying so; nuscenes-devkit needs numpy<2.
    "rerun": ["rerun-sdk>=0.23,<0.23.2", "pyarrow>=14.0.2,<26"],
    # ONNX graphs, and running them. ml-dtypes 0.6 needs numpy 2; nuscenes-devkit needs numpy<2.
    # onnxruntime 1.23.2 is the last one for Python 3.10.
    "export": [
        "onnx>=1.20,<1.24",
        "onnxscript>=0.6,<0.8",
        "onnxruntime>=1.23,<1.33",
        "ml-dtypes>=0.5.4,<0.6",
    ],
    # Attention kernels for GPUs beside torch's own, which are the default (docs/performance.md).
    "xformers": ["xformers>=0.0.35"],
    "flash-attn": ["flash-attn>=2.7"],
}

setup(
    name="streampetr_vit",
    version="0.1.0",
    description="Multi-camera temporal 3D object detection: StreamPETR with the EVA-02 ViT-Large"
    " backbone, on detectron2",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    package_dir={"": PROJECT},
    packages=find_packages(PROJECT, include=["streampetr_vit*", "synthetic_nuscenes*"]),
    install_requires=RUNTIME,
    extras_require=EXTRAS,
)
