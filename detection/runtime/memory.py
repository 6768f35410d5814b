"""How this process gets its memory."""

import ctypes
import gc
import sys
from typing import Any

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of giving it back at once.

    A tensor of more than 32 MB otherwise comes as fresh pages from the system, which clears them
    one by one on first use: training ZF-5 on two cores took 2.5 times as long. Does nothing where
    the C library is another one.
    """
    mallopt = of_glibc("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def return_freed_memory() -> None:
    """Give back what was kept, such as between stages, whose peaks would otherwise add up."""
    gc.collect()
    malloc_trim = of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def of_glibc(name: str) -> Any:
    """A function of the C library; None where that is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
