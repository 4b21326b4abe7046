"""Training steps: windows, their gradients and losses, lanes that start anew, single frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_detector import make_detector, make_sample
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.ray_denoising import RayDenoising, Views
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.modeling.training_window import TrainingDraws, TrainingWindow, evaluation_mode
from streampetr_vit.structures import Frame, FrameTargets, Sample
from streampetr_vit.structures.tensors import tensors_of

TWO_OF_THREE = TrainingWindow(num_frame_losses=2, num_frame_head_grads=2)


def window(scene: str = "a", start: int = 0, length: int = 3) -> list[Sample]:
    return [make_sample(start + t, scene, continues=t > 0) for t in range(length)]


def play(
    detector: StreamPETR, samples: list[list[Sample]], memory: TemporalMemory | None = None
) -> tuple[Any, TemporalMemory, list[Frame]]:
    """Results of a window of [time][stream] samples; nothing random in it."""
    frames = [Frame.collate(moment) for moment in samples]
    trained = min(len(frames), detector.window.num_frame_head_grads)
    memory = detector.empty_memory(len(samples[0])) if memory is None else memory
    draws = TrainingDraws(grid=None, denoising=[None] * trained)
    results, memory = detector.play(frames, memory, draws)
    return results, memory, frames


def test_a_window_has_losses_of_its_last_frames_under_clear_names() -> None:
    one, _ = make_detector().train().losses([window()])
    two, _ = make_detector(window=TWO_OF_THREE).train().losses([window()])
    assert set(two) == set(one) | {f"t-1.{name}" for name in one}
    assert {"enc_loss_cls", "t-1.centers2d_losses", "t-1.d0.dn_loss_cls"} <= set(two)


def test_each_loss_of_a_window_belongs_to_its_frame() -> None:
    detector = make_detector(window=TWO_OF_THREE).train()
    samples = [[sample] for sample in window()]
    results, _, _ = play(detector, samples)
    targets = [FrameTargets.collate(moment) for moment in samples[-2:]]
    both = detector.criterion(results, targets)
    newest, before = (
        detector.criterion([result], [true])
        for result, true in zip(reversed(results), reversed(targets), strict=True)
    )
    for name in newest:
        assert both[name] == newest[name] and both[f"t-1.{name}"] == before[name]
    assert newest["loss_cls"] != before["loss_cls"]


@pytest.mark.parametrize("num_frame_losses", [1, 2])
def test_losses_give_each_frame_its_own_boxes(num_frame_losses: int) -> None:
    """The detector's losses are those of a window that is played by hand with the same draws."""
    options = TrainingWindow(num_frame_losses, num_frame_head_grads=2)
    detector = make_detector(window=options).train()
    detector.grid_mask = detector.denoising = None
    losses, _ = detector.losses([window("a"), window("b")])
    samples = list(zip(window("a"), window("b"), strict=True))
    results, _, _ = play(detector, samples)
    with_losses = samples[-num_frame_losses:]
    targets = [FrameTargets.collate(moment) for moment in with_losses]
    expected = detector.criterion(results, targets)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-5)


def test_pictures_of_all_streams_keep_their_2d_boxes() -> None:
    samples = [make_sample(0, "a"), make_sample(0, "b")]
    targets = FrameTargets.collate(samples)
    expected = [boxes for sample in samples for boxes in sample.boxes2d]
    for actual, wanted in zip(targets.boxes2d, expected, strict=True):
        assert torch.equal(actual.corners, wanted.corners)
    samples[1] = replace(samples[1], boxes2d=None)
    assert FrameTargets.collate(samples).boxes2d is None


def test_denoising_is_drawn_from_each_trained_frame() -> None:
    detector = make_detector(window=TWO_OF_THREE).train()
    seen: list[Any] = []
    detector.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[3:4]))
    samples = window()
    detector.losses([samples])
    assert seen[0] in ((), (None,))  # history
    for sample, (queries,) in zip(samples[1:], seen[1:], strict=True):
        assert torch.equal(queries.boxes, sample.gt_boxes.repeat(2, 1))


def test_rays_are_those_of_each_trained_frames_cameras() -> None:
    detector = make_detector(window=TWO_OF_THREE).train()
    seen: list[Views] = []

    class Watched(DenoisingNoise):
        def make(self, *args: Any, views: Views | None = None, **options: Any) -> DenoisingQueries:
            seen.append(views)
            return super().make(*args, views=views, **options)

    detector.denoising = Watched(groups=1, ray=RayDenoising(groups=1))
    samples = [
        replace(sample, lidar_to_image=sample.lidar_to_image * (1 + t))
        for t, sample in enumerate(window())
    ]
    detector.losses([samples])
    for views, sample in zip(seen, samples[1:], strict=True):
        assert torch.equal(views.lidar_to_image[0], sample.lidar_to_image)
        assert views.image_size == (32, 64)


def test_gridmask_hides_pictures_of_trained_frames_only() -> None:
    detector = make_detector(window=TWO_OF_THREE).train()
    heights: list[int] = []

    class Watched(GridMask):
        def draw(self, height: int, generator: torch.Generator | None = None) -> GridDraw | None:
            heights.append(height)
            return super().draw(height, generator)

    detector.grid_mask = Watched(probability=1.0)
    hidden: dict[bool, Tensor] = {}
    detector.backbone.register_forward_pre_hook(
        lambda module, inputs: hidden.__setitem__(
            module.training, (inputs[0] == 0).all(1).double().mean((1, 2))
        )
    )
    samples = [replace(sample, images=sample.images[..., :27, :50]) for sample in window()]
    detector.losses([samples])
    assert heights == [32]  # of the padded pictures
    padded = 1 - 27 * 50 / (32 * 64)
    assert (hidden[False] < padded + 0.01).all()
    assert (hidden[True] > padded + 0.05).all()


def test_pictures_are_padded_at_the_right_and_bottom_and_the_2d_head_knows() -> None:
    detector = make_detector().train()
    sizes: list[tuple[int, int]] = []
    detector.image_head.register_forward_pre_hook(lambda head, inputs: sizes.append(inputs[1]))
    sample = make_sample(0)
    sample = replace(sample, images=sample.images[..., :27, :50])
    detector.losses([sample])
    assert sizes == [(32, 64)]
    given: list[Tensor] = []
    detector.backbone.register_forward_pre_hook(lambda m, inputs: given.append(inputs[0]))
    detector.image_features(sample.images[None])
    assert not given[0][..., 27:, :].any() and not given[0][..., 50:].any()
    assert given[0][..., :27, :50].any(dim=1).double().mean() > 0.99


def test_without_a_memory_nothing_is_continued() -> None:
    losses = []
    for continues in (True, False):
        detector = make_detector().train()
        torch.manual_seed(0)
        losses.append(detector.losses([make_sample(1, continues=continues)])[0])
    assert losses[0] == losses[1]


def test_the_memory_of_a_step_is_what_the_next_one_goes_on_with() -> None:
    detector = make_detector().train()
    detector.grid_mask = detector.denoising = None
    first, memory = detector.losses([make_sample(0)])
    with_past, _ = detector.losses([make_sample(1)], memory)
    without, _ = detector.losses([make_sample(1)])
    again, _ = detector.losses([make_sample(1)], memory)
    assert with_past == again and with_past["loss_cls"] != without["loss_cls"]
    assert not any(value.requires_grad for value in tensors_of(memory))
    assert first["loss_cls"].requires_grad


def test_a_window_equals_its_frames_one_after_the_other() -> None:
    detector = make_detector(window=TWO_OF_THREE).train()
    results, memory, frames = play(detector, [[sample] for sample in window()])
    expected, outputs = detector.empty_memory(1), []
    for frame in frames:
        output, expected = detector.step(frame, expected)
        outputs.append(output)
    assert len(results) == 2
    for result, output in zip(results, outputs[1:], strict=True):
        torch.testing.assert_close(result.output.codes, output.codes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(memory.embedding, expected.embedding, atol=1e-5, rtol=1e-5)


def test_no_gradient_of_a_frame_reaches_the_frames_before() -> None:
    detector = make_detector(
        window=TrainingWindow(num_frame_head_grads=3, num_frame_backbone_grads=3)
    ).train()
    seen: list[Tensor] = []

    def watch(head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(inputs[0].detach().requires_grad_())
        return (seen[-1], *inputs[1:])

    detector.head.register_forward_pre_hook(watch)
    results, _, _ = play(detector, [[sample] for sample in window()])
    (results[-1].output.codes.sum() + results[-1].output.logits.sum()).backward()
    assert seen[0].grad is None and seen[1].grad is None
    assert seen[2].grad is not None and seen[2].grad.any()


def test_only_the_last_frames_have_gradients_in_the_backbone() -> None:
    """Frames of history are seen without gradient, dropout and drop path."""
    detector = make_detector(window=TWO_OF_THREE).train()
    calls: list[tuple[bool, bool, int]] = []
    detector.backbone.register_forward_hook(
        lambda module, inputs, output: calls.append(
            (module.training, output["last_feat"].requires_grad, len(inputs[0]))
        )
    )
    detector.losses([window()])
    # Gradients first: see StreamPETR.play.
    assert calls == [(True, True, 6), (False, False, 2 * 6)]
    assert detector.training and all(part.training for part in detector.modules())


def test_history_is_played_by_the_head_as_in_evaluation() -> None:
    detector = make_detector().train()
    modes: list[tuple[bool, bool]] = []
    detector.head.register_forward_hook(
        lambda module, inputs, output: modes.append(
            (module.training, output[0].codes.requires_grad)
        )
    )
    detector.losses([window()])
    assert modes == [(False, False), (False, False), (True, True)]


def test_a_new_scene_resets_exactly_its_lane() -> None:
    detector = make_detector().train()
    first = [make_sample(0, "a"), make_sample(0, "b")]
    second = [make_sample(1, "a", continues=True), make_sample(0, "c", continues=False)]
    _, memory, _ = play(detector, [first])
    (both,), after, _ = play(detector, [second], memory)
    (kept,), kept_memory, _ = play(detector, only(second, 0), memory.map(lambda x: x[:1]))
    (fresh,), fresh_memory, _ = play(detector, only(second, 1))
    for lane, (alone, alone_memory) in enumerate(((kept, kept_memory), (fresh, fresh_memory))):
        torch.testing.assert_close(
            both.output.codes[:, lane], alone.output.codes[:, 0], atol=1e-4, rtol=1e-4
        )
        for name in vars(after):
            torch.testing.assert_close(
                getattr(after, name)[lane], getattr(alone_memory, name)[0], atol=1e-4, rtol=1e-4
            )


def only(samples: list[Sample], lane: int) -> list[list[Sample]]:
    return [[samples[lane]]]


def test_a_lane_that_is_resumed_starts_with_an_empty_memory() -> None:
    """After --resume the loader says so for the first frame of every lane, mid-scene."""
    detector = make_detector().train()
    _, memory, _ = play(detector, [[make_sample(0)]])
    resumed = [[make_sample(1, continues=False)]]
    (with_memory,), after, _ = play(detector, resumed, memory)
    (without,), expected, _ = play(detector, resumed)
    assert torch.equal(with_memory.output.codes, without.output.codes)
    assert torch.equal(after.embedding, expected.embedding)


def test_chosen_tokens_are_used_in_training_and_in_inference() -> None:
    detector = make_detector(token_ratio=0.25)
    seen: list[Tensor] = []
    detector.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[4]))
    detector.train().losses([make_sample(0)])
    Stream(detector.eval())([make_sample(0)])
    num_tokens = 6 * 2 * 4  # cameras, rows, columns of 16 pixels
    assert [tokens.shape for tokens in seen] == [(1, num_tokens // 4)] * 2
    assert all(len(tokens.unique()) == num_tokens // 4 for tokens in seen)


def test_chosen_tokens_are_used_in_the_history_of_a_window_too() -> None:
    detector = make_detector(token_ratio=0.25).train()
    seen: list[Tensor] = []
    detector.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[4]))
    detector.losses([window()])
    assert [tokens.shape for tokens in seen] == [(1, 12)] * 3


def test_all_tokens_in_ranked_order_change_nothing() -> None:
    detector = make_detector().eval()
    frame, memory = Frame.collate([make_sample(0)]), detector.empty_memory(1)
    with torch.no_grad():
        features = detector.image_features(frame.images)
        ranked = detector.image_head.token_indexes(
            detector.image_head(features, detector.padded_size(frame.image_size)), 1, 1.0
        )
        permuted, _ = detector.head(features, frame, memory, token_indexes=ranked)
        plain, _ = detector.head(features, frame, memory)
    assert not torch.equal(ranked[0], torch.arange(ranked.shape[1]))
    torch.testing.assert_close(permuted.codes, plain.codes, atol=1e-4, rtol=1e-4)


def test_the_single_frame_detector_is_the_same_code_without_memory() -> None:
    """PETR has no parameter of time, motion or memory, and the past does not matter."""
    detector = make_detector(num_propagated=0, memory_length=0, num_remembered=0)
    names = [name for name, value in detector.head.state_dict().items() if value.numel()]
    assert not [n for n in names if "time" in n or "motion" in n or n == "start_points"]
    losses, _ = detector.train().losses([make_sample(0), make_sample(1)])
    sum(losses.values()).backward()
    assert not [n for n, p in detector.named_parameters() if p.grad is None]
    stream = Stream(detector.eval())
    stream([make_sample(0)])
    (after,) = stream([make_sample(1)])
    (alone,) = Stream(detector)([make_sample(1)])
    assert torch.equal(after.boxes, alone.boxes)


def test_evaluation_mode_gives_back_what_it_found() -> None:
    detector = make_detector().train()
    detector.backbone.eval()  # a frozen part
    with evaluation_mode(detector):
        assert not any(part.training for part in detector.modules())
    assert detector.head.training and not detector.backbone.training


def test_wrong_settings_of_training_are_named() -> None:
    with pytest.raises(ValueError, match=r"num_frame_losses \(2\).*num_frame_head_grads \(1\)"):
        TrainingWindow(num_frame_losses=2)
    with pytest.raises(ValueError, match=r"num_frame_backbone_grads \(0\)"):
        TrainingWindow(num_frame_backbone_grads=0)
    for ratio in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"token_ratio \({ratio}\)"):
            make_detector(token_ratio=ratio)
    without_boxes2d = make_sample(0, boxes2d=None)
    with pytest.raises(ValueError, match="mapper.boxes2d=True"):
        make_detector().train().losses([without_boxes2d])
    one_without = [make_sample(0), without_boxes2d]
    with pytest.raises(InputError, match="mapper.boxes2d=True"):
        make_detector().train().losses(one_without)
    with pytest.raises(InputError, match="num_frame_losses is 2.*1 frame.*build_window_loader"):
        make_detector(window=TWO_OF_THREE).train().losses([make_sample(0)])
    with pytest.raises(ValueError, match=r"windows of one length.*\[1, 3\]"):
        make_detector().train().losses([window(), [make_sample(0)]])
