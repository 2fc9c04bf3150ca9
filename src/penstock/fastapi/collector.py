"""Python's garbage collector, told that what has started will stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["THRESHOLDS", "tuned_collector"]

THRESHOLDS = (50_000, 20, 50)
"""Objects made before the youngest generation is looked at, and how many looks it takes until the
next is (``gc.set_threshold``). Python's own 700 or 2,000 is reached every few requests."""


@contextmanager
def tuned_collector() -> Iterator[None]:
    """Leave out of every collection what exists now, and collect less often, for a block.

    An application's modules, models and routes live as long as the process; looking through them
    again and again is most of what a collection costs, and the longest pause that a request meets.
    What is made within the block is collected as ever.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
