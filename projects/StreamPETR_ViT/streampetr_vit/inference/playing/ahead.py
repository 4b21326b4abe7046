"""Work on the next items while the present one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterator[Any], make: Callable[[Any], T], count: int = 3) -> Iterator[T]:
    """Yields `make(item)` in the order of the items, of which up to `count` are made ahead.

    Args:
        items: asked for the next one in one other thread, as a decoder of videos needs it.
        make: called in several threads at once.
        count: of items.

    Raises:
        Exception: of an item or of `make`, when its turn comes.
    """
    with ThreadPoolExecutor(1, "items") as reader, ThreadPoolExecutor(count, "ahead") as makers:

        def start() -> Future[Any]:
            item = reader.submit(next, items, _END)
            return makers.submit(_made, item, make)

        waiting = deque(start() for _ in range(count))
        try:
            while (made := waiting.popleft().result()) is not _END:
                waiting.append(start())
                yield made
        finally:
            for pool in (makers, reader):
                pool.shutdown(cancel_futures=True)


def _made(item: Future[Any], make: Callable[[Any], Any]) -> Any:
    value = item.result()
    return _END if value is _END else make(value)
