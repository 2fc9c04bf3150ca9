"""What the ledger wants done, which its driver does and reports back."""

from dataclasses import dataclass

from penstock.pool.slot import CloseReason, Slot

__all__ = ["Check", "Close", "Open", "Order"]


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection for the slot; then ``opened`` or ``failed``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """Close the slot's connection and see its server process off; then ``vacate``."""

    slot: Slot
    why: CloseReason


@dataclass(frozen=True, slots=True)
class Check:
    """Ping the slot's idle connection; then ``checked`` or ``discard``."""

    slot: Slot


Order = Open | Close | Check
