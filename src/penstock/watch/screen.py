"""The whole screen: who is watched, how fresh the numbers are, and each database."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from penstock.watch.document import Part
from penstock.watch.feed import Lost
from penstock.watch.history import History
from penstock.watch.sections import sections
from penstock.watch.share import share
from penstock.watch.summary import LINES, summary

__all__ = ["Screen"]

_ENDLESS = 10_000
_AIRY = 40
_OLD = 3.0
_LEAST = LINES + 3
_REASON_LINES = 3
_NOTHING = "No database is shown. In production, install(..., access=...) shows it."


@dataclass(slots=True)
class Screen:
    """Draws what is known, in whatever size the terminal has at that moment.

    Args:
        source: Who is watched.
        clock: Monotonic time in seconds.
    """

    source: str
    clock: Callable[[], float] = time.monotonic
    _document: Part = field(default_factory=Part)
    _histories: dict[str, History] = field(default_factory=dict)
    _since: float = 0.0
    _lost: Lost | None = None
    _lost_at: float = 0.0

    def take(self, news: Part | Lost) -> None:
        """Take what is new."""
        if isinstance(news, Lost):
            self._lost, self._lost_at = news, self.clock()
            return
        self._document, self._since, self._lost = news, self.clock(), None
        known, self._histories = self._histories, {}
        for database in news.parts("databases"):
            name = database.text("name")
            self._histories[name] = known.get(name, History())
            self._histories[name].add(database.part("history"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height
        if height is None and console.is_alt_screen:
            height = options.size.height
        above = [self._title(width, ascii_only=options.ascii_only), *self._trouble(console, width)]
        databases = self._document.parts("databases")
        if not databases:
            above.append(Text(_NOTHING))
        elif height is not None:
            most = max((height - len(above)) // _LEAST, 1)
            if most < len(databases):
                above.append(Text(f"{most} of {len(databases)} databases: --database NAME"))
                databases = databases[:most]
        yield from above
        for index, database in enumerate(databases):
            lines = None if height is None else _part(height - len(above), len(databases), index)
            yield self._draw(database, console, options, lines)

    def _title(self, width: int, *, ascii_only: bool) -> Text:
        age = self.clock() - self._since
        fresh = age < _OLD and self._lost is None
        state = "live" if fresh else f"{age:.0f} s old"
        title = Text.assemble(("penstock watch", "bold"), f"  {self.source}")
        title.truncate(
            max(width - len(state) - 2, 0), overflow="crop" if ascii_only else "ellipsis"
        )
        title.pad_right(max(width - title.cell_len - len(state), 0))
        title.append(state, style="green" if fresh else "bold red")
        return title

    def _trouble(self, console: Console, width: int) -> Iterator[Text]:
        if (lost := self._lost) is None:
            return
        left = max(lost.pause - (self.clock() - self._lost_at), 0.0)
        again = f"Trying again in {left:.0f} s." if left >= 0.5 else "Trying again now."
        yield from Text(f"{again} {lost.error}", style="red").wrap(console, width)[:_REASON_LINES]

    def _draw(
        self, database: Part, console: Console, options: ConsoleOptions, height: int | None
    ) -> RenderableType:
        history = self._histories[database.text("name")]
        top = summary(database, history, options.max_width, ascii_only=options.ascii_only)
        below = sections(database, console, options.max_width)
        gap = 1 if height is None or height >= _AIRY else 0
        wants, least = [each.lines for each in below], [each.least for each in below]
        room = _ENDLESS if height is None else height - len(top)
        parts: list[RenderableType] = [*top[:height]]
        for section, lines in zip(below, share(wants, least, room, 1 + gap), strict=True):
            if lines:
                parts += [Text("")] * gap
                parts.append(section.show(lines))
        return Group(*parts)


def _part(room: int, among: int, index: int) -> int:
    """Return how many of the lines are for one of several databases."""
    return room // among + (1 if index < room % among else 0)
