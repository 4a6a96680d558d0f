"""What a process does with memory that it frees."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BLOCK, KEPT_BYTES = 32 << 20, 128 << 20  # larger blocks go back at once (the most that glibc takes); so does more


@cache
def keep_freed_memory() -> None:
    """What this process frees it keeps for its next block, instead of giving it back to the system at once.

    A training step or a task that needs the same few megabytes again and again otherwise pays for every page anew: up
    to half of the time of a log-mel spectrogram, a tenth of a training step. Only where the C library is GNU's.
    """
    with suppress(OSError, AttributeError):  # another C library
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, KEPT_BLOCK)
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
