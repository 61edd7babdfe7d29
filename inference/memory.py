"""Keeps malloc from giving the pages of large messages back to the kernel after each of them.

Above 16 MB a message's buffer doubles past glibc's threshold for mmap: every message then faults its pages in anew,
which costs more than sending it. Containers get the same by the environment (MALLOC_MMAP_THRESHOLD_,
MALLOC_TRIM_THRESHOLD_, MALLOC_TOP_PAD_).

The threads share one heap: each would else fault in pages of a heap of its own for the messages that it handles, and
what one of them frees, the others could not use.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # malloc.h
KEPT_BYTES = 2**30  # freed memory up to this much stays with the process; blocks below it come from the heap
TOP_PAD_BYTES = 64 * 2**20  # the heap grows by this much more than asked for


def keep_large_blocks() -> bool:
    """Set this for the process; gives whether its C library has it all (glibc does, musl does not)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = {
        M_MMAP_THRESHOLD: KEPT_BYTES,
        M_TRIM_THRESHOLD: KEPT_BYTES,
        M_TOP_PAD: TOP_PAD_BYTES,
        M_ARENA_MAX: 1,
    }
    taken = [mallopt(setting, value) for setting, value in settings.items()]
    return taken == [1] * len(settings)
