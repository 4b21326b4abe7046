"""StreamPETR for detectron2's own loops, which keep no memory and no streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from streampetr_vit.inference.stream import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Sample
from streampetr_vit.structures.sample_checks import check_sample


class BareStreamPETR(StreamPETR):
    """The detector with detectron2's contract: a model is called with samples alone.

    Args:
        parts, options: see `StreamPETR`.
        memory_at_test: False makes every frame of inference a stream of its own.
    """

    # The two memories below are for SimpleTrainer and inference_on_dataset. This project's trainer
    # calls `losses` and its evaluation makes a `Stream`: both leave them alone.

    def __init__(self, *parts: Any, memory_at_test: bool = True, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._memory: TemporalMemory | None = None
        self._stream = Stream(self, None, memory=memory_at_test)  # inference only

    def reset_streams(self) -> None:
        """Forgets all streams, of training and of inference."""
        self._memory = None
        self._stream.reset()

    def train(self, mode: bool = True) -> BareStreamPETR:
        """Sets the mode. Training mode ends the streams of inference."""
        # Either way the weights may be others now: what was computed from the old ones goes.
        self._stream.reset() if mode else self._stream.forget_rig()
        return super().train(mode)

    def forward(self, samples: Sequence[Any]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses in training mode, else a dict {"detections": Detections} for each stream.

        Args:
            samples: one entry for each of B streams: a `Sample`, or a dict of its values. In
                training an entry may be a window: a list of T of them in temporal order. Anything
                else is an InputError.
        """
        if not self.training:
            return [{"detections": found} for found in self._stream(samples)]
        one = (Sample, Mapping)
        batch = [Sample.of(x) if isinstance(x, one) else [Sample.of(s) for s in x] for x in samples]
        for entry in batch:
            for sample in [entry] if isinstance(entry, Sample) else entry:
                check_sample(sample, random_crop=True)
        if self._memory is not None and len(self._memory.embedding) != len(batch):
            self._memory = None  # another number of streams: all start anew
        losses, self._memory = self.losses(batch, self._memory)
        return losses
