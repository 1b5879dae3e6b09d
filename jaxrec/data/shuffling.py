"""Random order without memory: permutations and draws as pure functions of a counter.

Written over 32-bit integer operations that numpy and ``jax.numpy`` share, so that the host pipeline
and the on-device one yield the same batches for the same indices.
"""

from types import ModuleType
from typing import Any

import numpy as np

ROUNDS = 24
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


@np.errstate(over="ignore")
def mix(values: Any, xp: ModuleType = np) -> Any:
    """A bijection of 32-bit words whose output bits all depend on all input bits (two xor-multiply rounds)."""
    values = xp.asarray(values, xp.uint32)
    values = (values ^ (values >> xp.uint32(16))) * xp.uint32(_MULTIPLIERS[0])
    values = (values ^ (values >> xp.uint32(15))) * xp.uint32(_MULTIPLIERS[1])
    return values ^ (values >> xp.uint32(16))


@np.errstate(over="ignore")
def combine(seed: Any, *words: Any, xp: ModuleType = np) -> Any:
    """One 32-bit word from a seed and further words, all of them broadcast."""
    state = mix(xp.asarray(seed, xp.uint32), xp)
    for word in words:
        state = mix(state ^ mix(xp.asarray(word, xp.uint32) + xp.uint32(0x9E3779B9), xp), xp)
    return state


@np.errstate(over="ignore")
def permute(places: Any, size: int, seed: Any, xp: ModuleType = np) -> Any:
    """Where a random permutation of ``range(size)`` sends each place, without building it.

    The swap-or-not shuffle (Hoang, Morris, Rogaway 2012): in each round a place and its mirror image
    around a random point are exchanged or not, by one hashed bit of the larger of the two.

    Args:
      places: uint32 ``[n]``, each below ``size``.
      size: how many there are, below 2**31.
      seed: 32-bit word, scalar or ``[n]`` (places of different permutations in one call).
      xp: ``numpy`` or ``jax.numpy``.

    Returns:
      uint32 ``[n]``; distinct places of one seed have distinct images.
    """
    if not 0 < size < 2**31:
        raise ValueError(f"a permutation needs a size from 1 to 2**31 - 1, got {size}")
    places = xp.asarray(places, xp.uint32)
    total = xp.uint32(size)
    for number in range(ROUNDS):
        round_seed = combine(seed, number, xp=xp)
        pivot = round_seed % total
        mirror = xp.where(pivot >= places, pivot - places, pivot + total - places)
        larger = xp.maximum(places, mirror)
        swap = mix(larger ^ (round_seed * xp.uint32(0x9E3779B1) + xp.uint32(number)), xp) >> xp.uint32(31)
        places = xp.where(swap == xp.uint32(1), mirror, places)
    return places


__all__ = ["ROUNDS", "combine", "mix", "permute"]
