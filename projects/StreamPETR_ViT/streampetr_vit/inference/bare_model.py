"""StreamPETR for detectron2's own loops, which know neither memories nor streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from streampetr_vit.inference.stream import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.temporal_head import TemporalHead
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Sample


class BareStreamPETR(StreamPETR):
    """The detector with detectron2's contract: a bare model is called with samples alone.

    It keeps the memories that SimpleTrainer and inference_on_dataset do not keep. This project's
    own trainer and `Stream` do not use them.

    Args:
        backbone, head, options: see `StreamPETR`.
        memory_at_test: False makes every frame of inference a stream of its own.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: TemporalHead,
        *,
        memory_at_test: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, **options)
        self._memory: TemporalMemory | None = None
        self._stream = Stream(self, memory=memory_at_test)

    def reset_streams(self) -> None:
        """Forgets all streams, of training and of inference."""
        self._memory = None
        self._stream.reset()

    def train(self, mode: bool = True) -> BareStreamPETR:
        """Sets the mode. Streams of inference end where training begins."""
        if mode:
            self._stream.reset()
        return super().train(mode)

    def forward(self, samples: Sequence[Any]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses in training, else {"detections": Detections} for each stream.

        Args:
            samples: for each stream a `Sample` or a dict of its values; in training also a window
                of them.
        """
        if not self.training:
            batch = [Sample.of(sample) for sample in samples]
            return [{"detections": found} for found in self._stream(batch)]
        one = (Sample, Mapping)
        batch = [Sample.of(x) if isinstance(x, one) else [Sample.of(s) for s in x] for x in samples]
        if self._memory is not None and len(self._memory.embedding) != len(batch):
            self._memory = None
        losses, self._memory = self.losses(batch, self._memory)
        return losses
