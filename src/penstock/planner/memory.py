"""The memory that a server needs when all of its connections are open."""

from dataclasses import dataclass

from penstock.planner.units import MIB

BACKEND = 12 * MIB
"""Bytes of a backend that has worked with the catalogue; a fresh one has 1.1 MiB."""
_LEAST_WORK_MEM = 4 * MIB
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
                the least.
            nodes: Sorts and hashes of one query.
        """
        shared = 0 if memory is None else memory // 4
        if work_mem is None:
            rest = 0 if memory is None else memory - shared
            work_mem = max(_LEAST_WORK_MEM, rest // (3 * (connections + _PARALLEL_WORKERS)))
        return cls(connections, shared, work_mem, nodes)

    @property
    def total(self) -> int:
        """All of it together."""
        return self.shared_buffers + self.connections * (BACKEND + self.nodes * self.work_mem)

    def fitting_work_mem(self, memory: int) -> int:
        """Return the ``work_mem`` with which it fits; below 1 MiB where none does."""
        rest = (memory - self.shared_buffers) // max(1, self.connections) - BACKEND
        return max(0, rest // self.nodes)
