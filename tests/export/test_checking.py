"""What does not export says so in one line, with the setting that mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_detector import HEIGHT, WIDTH, make_detector, make_repdetr3d

from streampetr_vit.errors import InputError
from streampetr_vit.export.checking import check_exportable
from streampetr_vit.modeling.detector import StreamPETR

SIZE = (HEIGHT, WIDTH)


def petr() -> StreamPETR:
    return make_detector(num_propagated=0, memory_length=0, num_remembered=0)


def forgetful() -> StreamPETR:
    return make_detector(num_propagated=0, num_remembered=0)


def choosing() -> StreamPETR:
    detector = make_detector()
    detector.token_ratio = 0.5
    return detector


def with_xformers() -> StreamPETR:
    detector = make_detector()
    detector.head.decoder.layers[1].self_attention.kernel = "xformers"
    return detector


def with_backbone_kernel(kernel: str) -> StreamPETR:
    detector = make_detector()
    detector.backbone.net.kernel = kernel
    return detector


@pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
def test_a_detector_of_either_kind_passes(make: Callable[[], StreamPETR]) -> None:
    check_exportable(make().eval(), SIZE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (petr, "model.head.memory_length is 0 .* export a recipe of StreamPETR or RepDETR3D"),
        (forgetful, "model.head.num_remembered is 0"),
        (
            lambda: make_detector(with_quality=True),
            "model.head.with_quality is True.* export with model.head.with_quality=False; the boxes"
            " are the same",
        ),
        (
            lambda: make_detector(with_quality=True, remember_by_quality=True),
            "remember_by_quality is True.* train with model.head.remember_by_quality=False",
        ),
        (choosing, "model.token_ratio is 0.5: .* set model.token_ratio=1"),
        (with_xformers, "'xformers', .* set model.head.decoder.kernel=sdpa"),
        (
            lambda: with_backbone_kernel("flash-attn"),
            "kernel of backbone.net is 'flash-attn', .* set model.backbone.net.xattn=true",
        ),
        (lambda: with_backbone_kernel("xformers"), "kernel of backbone.net is 'xformers'"),
        (
            lambda: make_repdetr3d(sampling_kernel="gather"),
            "'gather', .* set model.head.decoder.sampling_kernel=grid_sample",
        ),
    ],
)
def test_what_does_not_export_is_told(make: Callable[[], StreamPETR], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_exportable(make().eval(), SIZE)
    assert "\n" not in str(caught.value)


def test_pictures_that_would_be_padded_are_told() -> None:
    with pytest.raises(InputError, match=r"final_size is \[33, 64\], .*final_size=\[48, 64\]"):
        check_exportable(make_detector().eval(), (33, 64))


def test_a_detector_in_training_is_told() -> None:
    with pytest.raises(InputError, match=r"training mode: call eval\(\)"):
        check_exportable(make_detector().train(), SIZE)
