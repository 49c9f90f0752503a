"""Decode many images in threads, in order, in little memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from ..threads import usable_cpus
from .sources.source import ImageRef

Result = TypeVar("Result")
CHUNK = 16  # images per task: handing over single thumbnails costs as much as decoding them
CHUNK_BYTES = 1 << 20  # ... but fewer when they are large and held in memory
HELD_BYTES = 1 << 28  # in memory at a time, as files or as results; what is larger goes alone


class Unreadable(str):
    """The reason why a file could not be read."""


def in_parallel(
    work: Callable[[Image.Image], Result], items: Iterable[ImageRef], result_bytes: int
) -> Generator[tuple[int, Result | Unreadable], None, None]:
    """Yield (position, work(image)) in the order of the items, worked out by threads: Pillow's decoders let go of the
    interpreter. Two chunks per thread are under way, of at most HELD_BYTES with their results of `result_bytes` each;
    close the generator to stop early."""
    threads = usable_cpus()
    under_way: deque[tuple[int, Future]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for chunk, size in _chunks(items, result_bytes):
                while len(under_way) >= 2 * threads or (under_way and size + sum(s for s, _ in under_way) > HELD_BYTES):
                    yield from under_way.popleft()[1].result()
                under_way.append((size, pool.submit(_results, work, chunk)))
            while under_way:
                yield from under_way.popleft()[1].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunks(items: Iterable[ImageRef], result_bytes: int) -> Iterator[tuple[list[ImageRef], int]]:
    """Group items into chunks, with the bytes that they and their results take."""
    chunk: list[ImageRef] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += item.held_bytes + result_bytes
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            yield chunk, size
            chunk, size = [], 0
    if chunk:
        yield chunk, size


def _results(work: Callable[[Image.Image], Result], chunk: list[ImageRef]) -> list[tuple[int, Result | Unreadable]]:
    return [(item.position, _attempt(work, item)) for item in chunk]


def _attempt(work: Callable[[Image.Image], Result], item: ImageRef) -> Result | Unreadable:
    try:
        with item.open() as image:
            return work(image)
    except UnidentifiedImageError:
        return Unreadable("not an image that Pillow can read")
    except Image.DecompressionBombError:
        return Unreadable(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels are too many")
    except Exception as error:  # a decoder that meets damaged bytes may raise nearly anything
        return Unreadable(str(error) or type(error).__name__)
