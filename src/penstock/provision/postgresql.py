"""PostgreSQL's settings for a machine: those of a 4 GB one, and computed ones for others."""

from dataclasses import dataclass

from penstock.base_error import SettingsError
from penstock.provision.machine import GIB, MIB, Disk, Machine

BASE = 4 * GIB
"""Memory of the machine whose values are fixed."""
MOST_CACHE = 15 * 1024 * GIB
"""What ``effective_cache_size`` can be, in whole TB."""
MOST_MAINTENANCE = 8 * GIB
MOST_WAL_BUFFERS = 16 * MIB
LEAST_WORK_MEM = 4 * MIB
USUAL_WORKERS = 8
"""PostgreSQL's ``max_worker_processes`` by default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting of PostgreSQL.

    Args:
        name: Its name.
        value: As ``postgresql.conf`` has it.
        reason: Why it is so.
    """

    name: str
    value: str
    reason: str


def parameters(machine: Machine, max_connections: int | None = None) -> tuple[Parameter, ...]:
    """Return PostgreSQL's settings for a machine, by PGTune's rules for a web service.

    Those of a machine with 4 GB are fixed, for PostgreSQL shares it with the service. A smaller one
    has no more than that.

    Args:
        machine: What there is for PostgreSQL.
        max_connections: How many; None for 200, or 50 for each GB below 4.

    Raises:
        SettingsError: ``max_connections`` is out of range.
    """
    most = 200 if machine.memory >= BASE else max(20, 50 * machine.memory // GIB)
    connections = most if max_connections is None else max_connections
    if not 10 <= connections <= 10_000:
        raise SettingsError(
            f"max_connections={connections}: a whole number from 10 to 10000 is accepted"
        )
    return (
        Parameter(
            "max_connections",
            str(connections),
            "all pools, PgBouncer and administrators together"
            + ("" if max_connections else "; 50 for each GB up to 4 GB"),
        ),
        *_memory(machine, connections),
        *_planner(machine.disk),
        Parameter("checkpoint_completion_target", "0.9", "checkpoints spread their writes"),
        Parameter("min_wal_size", "1GB", "WAL files that are kept for reuse"),
        Parameter("max_wal_size", "4GB", "a checkpoint comes when so much WAL is written"),
        *_parallel(machine.cores),
    )


def _memory(machine: Machine, connections: int) -> tuple[Parameter, ...]:
    memory = machine.memory
    if memory == BASE:
        shared, cache, maintenance, buffers, work = 256 * MIB, GIB, 64 * MIB, 16 * MIB, 4 * MIB
        why = dict.fromkeys(("shared", "cache", "maintenance", "buffers", "work"), _FIXED)
    else:
        shared, cache, maintenance = memory // 4, min(memory * 3 // 4, MOST_CACHE), memory // 16
        if memory < BASE:
            shared, cache, maintenance = (
                min(shared, 256 * MIB),
                min(cache, GIB),
                min(maintenance, 64 * MIB),
            )
        maintenance = min(maintenance, MOST_MAINTENANCE)
        buffers = min(shared * 3 // 100, MOST_WAL_BUFFERS)
        workers = max(USUAL_WORKERS, machine.cores)
        work = max((memory - shared) // ((connections + workers) * 3), LEAST_WORK_MEM)
        why = _COMPUTED
    return (
        Parameter("shared_buffers", _size(shared), why["shared"]),
        Parameter("effective_cache_size", _size(cache), why["cache"]),
        Parameter("maintenance_work_mem", _size(maintenance), why["maintenance"]),
        Parameter("wal_buffers", _size(buffers), why["buffers"]),
        Parameter("work_mem", _size(work), why["work"]),
    )


_FIXED = "that of a machine of 4 GB, which the service shares"
_COMPUTED = {
    "shared": "a quarter of the memory; no more than 256 MB below 4 GB",
    "cache": "three quarters of the memory, an estimate for the planner; 1 GB at most below 4 GB",
    "maintenance": "a sixteenth of the memory, up to 8 GB, for VACUUM and CREATE INDEX",
    "buffers": "3 % of shared_buffers, up to 16 MB",
    "work": "(memory - shared_buffers) / ((max_connections + workers) x 3), and at least 4 MB",
}


def _planner(disk: Disk) -> tuple[Parameter, ...]:
    cost, concurrency, why = {
        Disk.SSD: ("1.1", "200", "an SSD reads at random as fast as in order"),
        Disk.HDD: ("4", "2", "a hard disk seeks"),
    }[disk]
    return (
        Parameter("random_page_cost", cost, why),
        Parameter("effective_io_concurrency", concurrency, why),
        Parameter("default_statistics_target", "100", "samples for the planner's estimates"),
    )


def _parallel(cores: int) -> tuple[Parameter, ...]:
    if cores < 4:
        return ()
    half = str(min(4, -(-cores // 2)))
    return (
        Parameter(
            "max_worker_processes", str(max(USUAL_WORKERS, cores)), "one per core, 8 at least"
        ),
        Parameter("max_parallel_workers", str(cores), "one per core"),
        Parameter("max_parallel_workers_per_gather", half, "half of the cores, up to 4"),
        Parameter("max_parallel_maintenance_workers", half, "half of the cores, up to 4"),
    )


def _size(count: int) -> str:
    """Return a size in the largest unit that it is a whole number of, from MB on."""
    megabytes = count // MIB
    return f"{megabytes // 1024}GB" if megabytes % 1024 == 0 else f"{megabytes}MB"


def fragment(machine: Machine, max_connections: int | None = None) -> str:
    """Return a file for PostgreSQL's ``conf.d``, each line with its reason.

    Args:
        machine: What there is for PostgreSQL.
        max_connections: As for :func:`parameters`.
    """
    lines = [f"# PostgreSQL 17 and 18 on {machine}. Generated by penstock provision.", ""]
    for each in parameters(machine, max_connections):
        lines += [f"# {each.reason}", f"{each.name} = {each.value}"]
    return "\n".join([*lines, ""])
