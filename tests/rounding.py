"""Bounds on the difference that rounding makes between two ways to compute one number."""

import math

# Unit roundoff u: the largest relative error of rounding to the nearest number of the format.
UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def rounding_error(precision: str, roundings: int) -> float:
    """Three standard deviations of the relative error after independent roundings.

    One rounding's relative error is about uniform in [-u, u], so its standard deviation is
    u / sqrt(3). The squares of independent errors add up. But a sum of n numbers of one sign that
    is itself rounded at each addition has an error in proportion to n.

    Args:
        precision: "float32", "bfloat16" or "float16".
        roundings: How many of them the number has gone through, in sequence.
    """
    return 3.0 * UNIT[precision] * math.sqrt(roundings / 3.0)
