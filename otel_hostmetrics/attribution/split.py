"""Integer parts of an integer whole that add up to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def split(amount: int, weights: Sequence[int], whole: int = 0) -> list[int]:
    """Parts of *amount* in proportion to *weights*, each within 1 of exact; together ``amount * sum(weights) // whole``.

    *whole* is what would take all of *amount*, at least the sum of the weights; 0 = their sum. Nothing is negative. Each
    part is the step between two rounded running totals: one pass, where ranking remainders would sort.
    """
    ends = list(accumulate(weights))
    whole = max(whole, ends[-1] if ends else 0)
    if whole <= 0:
        return [0] * len(ends)
    shares = [amount * end // whole for end in ends]
    return [end - begin for begin, end in zip([0, *shares], shares, strict=False)]
