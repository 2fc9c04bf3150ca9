"""Server-sent events, taken from a stream of bytes however it is cut."""

__all__ = ["EventReader", "EventTooLongError"]

_MARK = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """An event, or a line, has more bytes than are accepted."""


class EventReader:
    """Puts events together, as the HTML standard tells (section 9.2.6).

    Of each event only the data are told, and only of those without a type of their own;
    ``id`` and ``retry`` count for nothing, for a reader that begins anew with the whole.

    Args:
        longest: Bytes that one event may have.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""
        self._at_start = True
        self._after_return = False
        self._data: list[bytes] = []
        self._type = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes.

        Returns:
            The data of the events that are complete with them, oldest first.

        Raises:
            EventTooLongError: An event grows beyond ``longest``.
        """
        if not chunk:
            return []
        complete = [data for line in self._lines(chunk) if (data := self._line(line)) is not None]
        if len(self._rest) + sum(map(len, self._data)) + len(self._data) > self._longest:
            raise EventTooLongError(f"an event is longer than {self._longest:,} bytes")
        return complete

    def _lines(self, chunk: bytes) -> list[bytes]:
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._after_return = chunk.endswith(b"\r")
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\r", b"\n")) else b""
        return [line.rstrip(b"\r\n") for line in lines]

    def _line(self, line: bytes) -> str | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_MARK)
        if not line:
            return self._end()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
        return None

    def _end(self) -> str | None:
        data, kind = self._data, self._type
        self._data, self._type = [], b""
        if not data or kind not in (b"", b"message"):
            return None
        return b"\n".join(data).decode(errors="replace")
