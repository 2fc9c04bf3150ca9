"""The memory that a server needs when all of its connections are open."""

from dataclasses import dataclass
from math import ceil

from penstock.planner.units import MIB

BACKEND = 12 * MIB
"""Bytes of a backend that has worked with the catalogue; a fresh one has 1.1 MiB."""
_USUAL_WORK_MEM = 4 * MIB
LEAST_WORK_MEM = 64 * 1024
"""The least work_mem that PostgreSQL accepts."""
_PARALLEL_WORKERS = 8
"""PostgreSQL's default of max_worker_processes."""


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """What the connections of a plan take on the server, in bytes.

    Args:
        connections: That are open at once.
        shared_buffers: A quarter of the machine's memory, as PGTune has it; 0 where that is not
            known.
        work_mem: Of one sort or hash.
        nodes: Sorts and hashes of one query.
    """

    connections: int
    shared_buffers: int
    work_mem: int
    nodes: int

    @classmethod
    def of(
        cls, connections: int, memory: int | None, work_mem: int | None, nodes: int
    ) -> "ServerMemory":
        """Return it with PGTune's sizes for what is not given.

        Args:
            connections: That are open at once.
            memory: Of the machine; None where it is not known.
            work_mem: None for (memory - shared_buffers) / (3 x (connections + workers)), 4 MiB at
                the least, or for what fits where that is less.
            nodes: Sorts and hashes of one query.
        """
        shared = 0 if memory is None else memory // 4
        if work_mem is not None or memory is None:
            return cls(connections, shared, work_mem or _USUAL_WORK_MEM, nodes)
        tuned = (memory - shared) // (3 * (connections + _PARALLEL_WORKERS))
        fitting = cls(connections, shared, 0, nodes).fitting_work_mem(memory)
        chosen = min(max(_USUAL_WORK_MEM, tuned), fitting)
        return cls(connections, shared, max(LEAST_WORK_MEM, chosen), nodes)

    @property
    def total(self) -> int:
        """All of it together."""
        return self.shared_buffers + self.connections * (BACKEND + self.nodes * self.work_mem)

    def fitting_work_mem(self, memory: int) -> int:
        """Return the ``work_mem`` with which it fits, in whole kB; 0 where none does."""
        rest = (memory - self.shared_buffers) // max(1, self.connections) - BACKEND
        return max(0, rest // self.nodes) // 1024 * 1024

    def least_memory(self) -> int:
        """Return the memory of a machine on which it fits with the least ``work_mem``."""
        return ceil(self.connections * (BACKEND + self.nodes * LEAST_WORK_MEM) * 4 / 3) + 1
