"""Python's garbage collector, told that what has started will stay."""

import gc

__all__ = ["THRESHOLDS", "tune_collector"]

THRESHOLDS = (50_000, 20, 50)
"""Objects made before the youngest generation is looked at, and how many looks it takes until the
next is (``gc.set_threshold``). Python's own 700 or 2,000 is reached every few requests."""


def tune_collector() -> None:
    """Leave out of every later collection what exists now, and collect less often.

    An application's modules, models and routes live as long as the process; looking through them
    again and again is most of what a collection costs, and the longest pause that a request meets.
    What is made from now on is collected as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
