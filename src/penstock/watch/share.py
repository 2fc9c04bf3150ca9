"""Who gets how many of the lines of a terminal."""

from collections.abc import Sequence

__all__ = ["share"]


def share(wants: Sequence[int], least: Sequence[int], room: int, overhead: int) -> list[int]:
    """Share lines among sections, the more important of which come first.

    Each that wants some gets its least, or what is left of the room, in this order; then each gets
    one more, again and again.

    Args:
        wants: Lines that each section could fill.
        least: Lines without which each would say little.
        room: Lines that there are.
        overhead: Lines that a section costs besides, if it is there at all.

    Returns:
        The lines for each; 0 for a section that is left out.
    """
    given = [0] * len(wants)
    for index, want in enumerate(wants):
        if want > 0 and room > overhead:
            given[index] = min(want, least[index], room - overhead)
            room -= given[index] + overhead
    while room > 0:
        unsatisfied = [index for index, want in enumerate(wants) if 0 < given[index] < want]
        if not unsatisfied:
            break
        for index in unsatisfied[:room]:
            given[index] += 1
            room -= 1
    return given
