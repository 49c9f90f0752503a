"""Many pictures at once: threads, in order, with little in memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from .pictures import Item, Pictures

Result = TypeVar("Result")
CHUNK = 16  # pictures per task: handing over single thumbnails costs as much as decoding them
CHUNK_BYTES = 1 << 20  # ... but fewer when they are large and held in memory


class Unreadable(str):
    """Why a file could not be read."""


def in_parallel(
    work: Callable[[Image.Image], Result], pictures: Pictures
) -> Generator[tuple[int, Result | Unreadable], None, None]:
    """Yield (position, work(picture)) in the stream's order, worked out by threads: Pillow's decoders let go of the
    interpreter. At most three chunks per thread are under way; close the generator to stop early."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for chunk in _chunks(pictures.stream()):
                waiting.append(pool.submit(_attempt_all, work, chunk))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _chunks(stream: Iterator[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in stream:
        chunk.append(item)
        if len(chunk) == CHUNK or sum(item.held_bytes for item in chunk) > CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _attempt_all(work: Callable[[Image.Image], Result], chunk: list[Item]) -> list[tuple[int, Result | Unreadable]]:
    return [(item.position, _attempt(work, item)) for item in chunk]


def _attempt(work: Callable[[Image.Image], Result], item: Item) -> Result | Unreadable:
    try:
        with item.open() as image:
            return work(image)
    except UnidentifiedImageError:
        return Unreadable("not a picture that Pillow can read")
    except Exception as error:  # a decoder that meets damaged bytes may raise nearly anything
        return Unreadable(str(error) or type(error).__name__)
