"""detectron2's own loops, which know a bare model and dicts, do what this project's loops do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from tiny_detector import make_bare_detector, make_detector, make_sample, same
from torch import Tensor

from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.inference.bare_model import BareStreamPETR
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Detections, Sample

STEPS = 4
TWO_SCENES = [make_sample(time, scene) for scene in "ab" for time in range(3)]


def batches() -> Iterator[list[Sample]]:
    """Two streams; one of them comes to another scene in the third step."""
    for step in range(STEPS):
        other = make_sample(step - 2, "c") if step >= 2 else make_sample(step, "b")
        yield [make_sample(step, "a"), other]


def as_dicts(entries: list[Any]) -> list[Any]:
    return [e.as_dict() if isinstance(e, Sample) else as_dicts(e) for e in entries]


def losses_of(history: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    return [{name: float(value.detach()) for name, value in step.items()} for step in history]


def trained_by_detectron2(model: BareStreamPETR) -> list[dict[str, float]]:
    history: list[dict[str, Tensor]] = []
    model.register_forward_hook(lambda module, inputs, losses: history.append(losses))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = SimpleTrainer(model, map(as_dicts, batches()), optimizer)
    torch.manual_seed(1)
    trainer.train(0, STEPS)
    return losses_of(history)


def trained_by_us(model: torch.nn.Module) -> list[dict[str, float]]:
    history: list[dict[str, Tensor]] = []
    module = training_module(model)
    module.register_forward_hook(lambda module, inputs, result: history.append(result[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = StreamingTrainer(module, optimizer, batches(), clip_grad_norm=None)
    torch.manual_seed(1)
    trainer.train(0, STEPS)
    return losses_of(history)


def test_simple_trainer_gives_the_losses_of_our_trainer_step_for_step() -> None:
    ours, theirs = make_detector(), make_bare_detector()
    expected = trained_by_us(ours)
    assert trained_by_detectron2(theirs) == expected
    assert len(expected) == STEPS and expected[0] != expected[1]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_the_memory_takes_part_in_what_simple_trainer_trains() -> None:
    """Else the test above could pass without any memory."""
    forgetful = make_bare_detector()
    forgetful.register_forward_pre_hook(lambda module, inputs: module.reset_streams())
    with_memory, without = trained_by_us(make_detector()), trained_by_detectron2(forgetful)
    assert with_memory[0] == without[0] and with_memory[1] != without[1]


def test_a_window_of_dicts_trains_too() -> None:
    window = TrainingWindow(num_frame_losses=1, num_frame_head_grads=2)
    samples = [[make_sample(time, continues=time > 0) for time in range(3)]]
    ours, theirs = make_detector(window=window).train(), make_bare_detector(window=window).train()
    torch.manual_seed(2)
    expected, _ = ours.losses(samples)
    torch.manual_seed(2)
    assert theirs(as_dicts(samples)) == expected


class Kept(DatasetEvaluator):
    """Keeps what the loop hands over."""

    def reset(self) -> None:
        self.inputs: list[dict[str, Any]] = []
        self.found: list[Detections] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self.inputs += inputs
        self.found += [output["detections"] for output in outputs]

    def evaluate(self) -> None:
        """There is nothing to measure."""


def evaluated(model: BareStreamPETR, samples: list[Sample]) -> list[Detections]:
    """By detectron2's loop, a batch of one at a time."""
    loader, kept = [as_dicts([sample]) for sample in samples], Kept()
    inference_on_dataset(model, loader, kept)
    assert [entry["sample_token"] for entry in kept.inputs] == [s.sample_token for s in samples]
    return kept.found


@pytest.mark.parametrize("memory", [True, False])
def test_inference_on_dataset_gives_the_detections_of_a_stream(memory: bool) -> None:
    stream = Stream(make_detector().eval(), memory=memory)
    expected = [stream([sample])[0] for sample in TWO_SCENES]
    assert same(evaluated(make_bare_detector(memory_at_test=memory), TWO_SCENES), expected)
    forgetting = Stream(make_detector().eval(), memory=False)
    alone = [forgetting([sample])[0] for sample in TWO_SCENES]
    assert same(expected, alone) == (not memory)


def test_a_second_evaluation_starts_anew() -> None:
    """detectron2 evaluates between the steps of a training, with other weights each time."""
    model = make_bare_detector().train()
    first = evaluated(model, TWO_SCENES)
    assert same(evaluated(model, TWO_SCENES), first)
    with torch.no_grad():
        model.head.token_modulation.gamma.weight.mul_(1.5)
    changed = make_bare_detector()
    changed.load_state_dict(model.state_dict())
    assert same(evaluated(model, TWO_SCENES), evaluated(changed, TWO_SCENES))


def test_a_training_in_between_lets_one_scene_be_evaluated_again() -> None:
    """The scene's first frame is earlier than its last one, which was seen before."""
    model, scene = make_bare_detector().train(), [make_sample(0), make_sample(1)]
    first = evaluated(model, scene)
    assert same(evaluated(model, scene), first)
    model.eval()
    evaluated(model, scene)
    with pytest.raises(ValueError, match=r"reset\(\).*reset_streams\(\)"):
        evaluated(model, scene)
    model.reset_streams()
    assert same(evaluated(model, scene), first)


def test_other_weights_in_the_middle_of_a_scene_are_seen_by_the_rig_code() -> None:
    model, frames = make_bare_detector().eval(), as_dicts([make_sample(0), make_sample(1)])
    model(frames[:1])
    with torch.no_grad():
        model.head.token_modulation.gamma.weight.fill_(0.5)
    kept = Stream(model)
    kept.memory, kept._position = model._stream.memory, list(model._stream._position)
    model.eval()
    found = model(frames[1:])[0]["detections"]
    assert torch.equal(found.scores, kept([Sample.of(frames[1])])[0].scores)


def test_an_evaluation_in_the_middle_leaves_the_training_memory_alone() -> None:
    results = []
    for evaluate in (False, True):
        model = make_bare_detector().train()
        torch.manual_seed(1)
        model(as_dicts([make_sample(0)]))
        memory = model._memory
        if evaluate:
            evaluated(model, [make_sample(5, "other")])
        assert model.training and model._memory is memory
        torch.manual_seed(2)
        results.append(model(as_dicts([make_sample(1)])))
    assert results[0] == results[1]


def test_another_number_of_streams_starts_training_anew() -> None:
    model = make_bare_detector().train()
    model([make_sample(0, "a"), make_sample(0, "b")])
    torch.manual_seed(1)
    found = model([make_sample(1, "a")])
    ours = make_detector().train()
    torch.manual_seed(1)
    expected, _ = ours.losses([make_sample(1, "a")])
    assert found == expected


def test_what_is_no_sample_is_named() -> None:
    lacking = make_sample(0).as_dict()
    del lacking["timestamp_s"]
    with pytest.raises(InputError, match="a sample needs timestamp_s; it has images, "):
        make_bare_detector().eval()([lacking])
    with pytest.raises(InputError, match="one Sample or dict per stream, not list"):
        make_bare_detector().eval()([[make_sample(0)]])
