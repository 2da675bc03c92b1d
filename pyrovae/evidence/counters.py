"""Random numbers as a function of keys and counters, by plain operations on tensors.

The same on every device, for any number of threads, and inside a compiled graph. A word is
``mix(key + mix(counter))``. The counters are mixed before they meet a key: the sums for two keys
then have no runs of numbers in common. The mixed counters serve all keys.

References:
    Fast Splittable Pseudorandom Number Generators (Steele et al., 2014), with the constants of
    its SplitMix64 after Stafford's thirteenth mixer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["counters", "mix", "normal", "num_words", "uniform"]

_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_BITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
"""Of a uniform number: as many as make it exact and less than one."""


def mix(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64, of words in int64."""
    words = _folded(words, 30).mul_(_FIRST)
    words = _folded(words, 27).mul_(_SECOND)
    return _folded(words, 31)


def _folded(words: Tensor, shift: int) -> Tensor:
    return _shifted(words, shift).bitwise_xor_(words)


def _shifted(words: Tensor, shift: int) -> Tensor:
    """Shifted right without sign."""
    return (words >> shift).bitwise_and_((1 << (64 - shift)) - 1)


def counters(num_particles: int, start: int, num_words: int, device: torch.device) -> Tensor:
    """``(K, W)`` mixed counters of words of particles ``start`` to ``start + K``."""
    particles = torch.arange(start, start + num_particles, device=device)
    return mix((particles << 32)[:, None] + torch.arange(num_words, device=device))


def num_words(num_elements: int, dtype: torch.dtype) -> int:
    """Words of a particle that :func:`normal` needs for so many numbers."""
    pairs = -(-num_elements // 2)
    return 2 * pairs if dtype == torch.float64 else pairs


def uniform(keys: Tensor, counters: Tensor, rest: Sequence[int], dtype: torch.dtype) -> Tensor:
    """``(K, B, *rest)`` numbers uniform in [0, 1), of keys ``(B,)`` and counters
    ``(K, prod(rest))``.
    """
    bits = _BITS[dtype]
    numbers = _shifted(_words(keys, counters), 64 - bits).to(dtype).mul_(2.0**-bits)
    return numbers.reshape(*numbers.shape[:2], *rest)


def normal(keys: Tensor, counters: Tensor, rest: Sequence[int], dtype: torch.dtype) -> Tensor:
    """``(K, B, *rest)`` standard normal numbers, of keys ``(B,)`` and counters ``(K, W)``, with W
    of :func:`num_words`. They come in pairs (Box and Muller, 1958).

    In double precision the radius and the angle of a pair have a word each. In single precision a
    word gives the radius 40 bits, for numbers up to 7.5, and the angle 24. What is narrower is
    rounded from that.
    """
    words, num = _words(keys, counters), math.prod(rest)
    if dtype == torch.float64:
        radius, angle = _shifted(words, 11).tensor_split(2, -1)
        kind, radius_bits, angle_bits = torch.float64, 53, 53
    else:
        radius, angle = _shifted(words, 24), words & ((1 << 24) - 1)
        kind, radius_bits, angle_bits = torch.float32, 40, 24
    # Half a step above zero. The largest ones round to 1, which makes a radius of zero.
    share = radius.to(kind).add_(0.5).mul_(2.0**-radius_bits)
    length = share.log_().mul_(-2).sqrt_()
    turn = angle.to(kind).mul_(2 * math.pi * 2.0**-angle_bits)
    pairs = torch.cat([turn.cos().mul_(length), turn.sin().mul_(length)], -1)
    return pairs[..., :num].to(dtype).reshape(*pairs.shape[:2], *rest)


def _words(keys: Tensor, counters: Tensor) -> Tensor:
    """``(K, B, W)`` words."""
    return mix(keys[:, None] + counters[:, None, :])
