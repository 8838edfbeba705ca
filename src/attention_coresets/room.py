"""Says how much is worked on together: on the CPU what suits its caches, on a GPU what its free memory holds."""

import torch

_COPIES = 5  # of the largest array at once: a walk has its Gram matrix, a factor and an inverse, or two being compacted


def at_once(numbers: int, device: torch.device, on_cpu: int) -> int:
    """Returns how many heads, or the like, to work on together, at least 1; the results do not depend on it.

    numbers: of float64, in the largest array of a head.
    on_cpu: numbers in all heads together there. A GPU takes as many as its memory holds five times over, for a launch
        costs the same whatever its size.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, not in use
        return max(1, free // (8 * _COPIES) // numbers)
    return max(1, on_cpu // numbers)
