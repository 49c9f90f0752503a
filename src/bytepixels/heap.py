"""Keep freed memory in the process: a training step asks for the same large blocks every time.

glibc returns large blocks to the system when they are freed, and every page of the next one is then cleared and mapped
anew; the pages are small ones besides. Together a tenth of a training step of `small`. Elsewhere nothing is changed.
"""

import ctypes
import os
import sys
from functools import cache

from .memory import free_memory

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc, malloc.h
MADV_HUGEPAGE = 14  # Linux, mman.h
HUGE = 2**21  # bytes of a huge page on most processors
NEVER = -1  # as a threshold: the largest that there is


@cache
def keep_memory() -> bool:
    """Keep what is freed, and ask for huge pages. Returns whether it was done.

    Left alone: other systems, other allocators, address space that is limited (ulimit -v), and whoever has set up
    glibc's by its own variables. The program holds
    on to its largest size so far, whatever it freed since.
    """
    own = [name for name in os.environ if name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD")]
    if sys.platform != "linux" or own or _limited():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    libc.mallopt(M_MMAP_THRESHOLD, 2**30)  # for when what is reserved below is used up
    _on_huge_pages(libc, int(free_memory() / 2))
    return True


def _limited() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _on_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Let the heap grow by `size` bytes of address space, which hold no memory until used, and mark them."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(M_MMAP_MAX, 0)  # or a block of that size would not come from the heap
    start = libc.malloc(size)
    libc.mallopt(M_MMAP_MAX, 65536)  # glibc's default
    if start:
        first = -(-start // HUGE) * HUGE
        libc.madvise(first, (start + size) // HUGE * HUGE - first, MADV_HUGEPAGE)
        libc.free(start)
