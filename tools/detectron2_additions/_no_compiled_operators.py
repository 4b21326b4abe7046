"""Stands where detectron2's compiled module ``_C`` would be in a pure-Python detectron2.

The classes that call compiled operators (rotated boxes, deformable convolution, the fast COCO
evaluation) stay importable; using one of them says what is missing instead of failing obscurely.
"""


def __getattr__(name: str) -> object:
    """Refuse every operator by name.

    Raises:
        AttributeError: always; an attribute error, so that ``hasattr`` keeps its meaning.
    """
    raise AttributeError(
        f"detectron2._C.{name} is a compiled operator and this detectron2 is pure Python. "
        "Nothing in streampetr_vit uses it; build detectron2 from its own repository to have it."
    )
