"""How the C library hands out memory on a CPU."""

import ctypes

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGEST_THRESHOLD = 32 * 2**20  # to which glibc itself raises the size from which it maps memory
KEEP = 2**31 - 1
MAPPINGS = 65536  # glibc's default


def keep_freed_memory(keep: bool = True) -> bool:
    """Let large tensors reuse the memory of those before them; `False` goes back to what glibc does by itself.

    By default every block of more than 32 MiB is mapped anew and given back when it is freed, so that each step faults
    in all its gradients page by page: a fifth to a quarter of a step of the benchmark's `mid` network.

    Returns:
        whether the C library can be told; only glibc can.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_TRIM_THRESHOLD: KEEP, M_MMAP_THRESHOLD: LARGEST_THRESHOLD, M_MMAP_MAX: 0 if keep else MAPPINGS}
    return all(mallopt(name, value) for name, value in settings.items())
