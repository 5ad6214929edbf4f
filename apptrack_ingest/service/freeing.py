"""Lets the C library give back to the system what large mails took, so that a rush does not stay in memory for ever."""

import contextlib
import ctypes
import gc

# malloc.h of the GNU C library; elsewhere (musl) there is no mallopt, and no need of it.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

OWN_MAPPING_FROM = 128 * 1024
"""Bytes from which on a piece of memory is mapped by itself, and so gone when it is freed. It is the library's own first
value, which it doubles and doubles as large pieces are freed; said by us, it stays."""

KEPT = 8 * 1024 * 1024
"""Bytes that may stay at the end of the heap when they are free: a few mails at once take some megabytes there, and given
back after each of them they are asked for again, a page at a time."""


def give_back_memory() -> None:
    """To be called once, at the start of a process that holds many large mails for a short time (mallopt(3))."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_FROM)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_ARENA_MAX, 2)


def keep_what_was_made() -> None:
    """To be called once everything stands: what there is now stays to the end, and need not be looked through for garbage
    again and again, which takes tens of milliseconds each time (gc.freeze)."""
    gc.collect()
    gc.freeze()
