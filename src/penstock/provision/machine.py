"""The machine that PostgreSQL runs on."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from penstock.base_error import SettingsError

MIB = 1024**2
GIB = 1024**3
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB|MiB|GiB|TiB|Mi|Gi|Ti)", re.IGNORECASE)


class Disk(StrEnum):
    """What the data are on."""

    SSD = "ssd"
    HDD = "hdd"


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is for PostgreSQL.

    Args:
        memory: In bytes.
        cores: Of the CPU.
        disk: What the data are on.
    """

    memory: int
    cores: int
    disk: Disk = Disk.SSD

    @classmethod
    def here(cls, directory: Path = Path("/"), root: Path = Path("/")) -> Self:
        """Return this machine, or what a container may use of it.

        Args:
            directory: Where the data are to be; what cannot be told of its disk is an SSD.
            root: Where ``/proc`` and ``/sys`` are.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(_memory(root), cores or 1, _disk(directory, root))

    @classmethod
    def of(cls, memory: str, cores: int, disk: str = "ssd") -> Self:
        """Return a machine by its description.

        Args:
            memory: Such as ``16GB``; units are those of PostgreSQL, of 1024.
            cores: Of the CPU.
            disk: ``ssd`` or ``hdd``.

        Raises:
            SettingsError: One of them is malformed or out of range; the message names it.
        """
        found = _SIZE.fullmatch(memory.strip())
        size = float(found[1]) * _UNITS[found[2][0].upper()] if found else 0
        if not 512 * MIB <= size <= 24 * 1024 * GIB:
            raise SettingsError(f"memory={memory!r}: a size from 512MB to 24TB is accepted")
        if not 1 <= cores <= 1024:
            raise SettingsError(f"cores={cores}: a whole number from 1 to 1024 is accepted")
        if disk not in set(Disk):
            raise SettingsError(f"disk={disk!r}: ssd or hdd is accepted")
        return cls(int(size), cores, Disk(disk))

    def __str__(self) -> str:
        """Return a description, such as ``16 GB of memory, 4 core(s), ssd``."""
        return f"{self.memory / GIB:.3g} GB of memory, {self.cores} core(s), {self.disk}"


_UNITS = {"M": MIB, "G": GIB, "T": 1024 * GIB}


def _memory(root: Path) -> int:
    kilobytes = re.search(r"MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"))
    physical = int(kilobytes[1]) * 1024 if kilobytes else 4 * GIB
    if physical > GIB:  # the kernel keeps a part: 3.8 of 4
        physical = round(physical / GIB) * GIB
    limit = _text(root / "sys/fs/cgroup/memory.max").strip()
    return min(physical, int(limit)) if limit.isdecimal() else physical


def _disk(directory: Path, root: Path) -> Disk:
    device = directory.stat().st_dev
    block = (root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    # A partition has its disk's queue one level up. A virtual disk says that it turns, of whatever.
    turns = _text(block / "queue/rotational") or _text(block.parent / "queue/rotational")
    return Disk.HDD if turns.strip() == "1" and "virtio" not in str(block) else Disk.SSD


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
