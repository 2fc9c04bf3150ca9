"""Checks of the settings that share out the machine's memory."""

from penstock.doctor.check import Check, Observation, Query, Rows, size
from penstock.doctor.checks.settings import MIB, SETTINGS, applied, number, row_of, shown
from penstock.findings import Severity

MEMORY = Query("memory")
LARGEST_SHARE = 0.4
LARGE_BUFFERS = 8 * 1024 * MIB


def _cache_size(rows: Rows) -> Observation | None:
    cache, buffers = row_of(rows, "effective_cache_size"), row_of(rows, "shared_buffers")
    if number(cache) >= number(buffers):
        return None
    return Observation(
        Severity.WARNING,
        f"effective_cache_size is {shown(cache)}, less than shared_buffers of {shown(buffers)}.",
        "The planner takes index scans for dearer than they are. Set it to three quarters of the "
        "memory.",
        applied(
            "effective_cache_size",
            f"{round(number(buffers)) * 3 // MIB}MB",
            restarts=False,
            set_for=cache["set_for"],
        ),
    )


def _huge_pages(rows: Rows) -> Observation | None:
    buffers, status = row_of(rows, "shared_buffers"), row_of(rows, "huge_pages_status")
    if number(buffers) < LARGE_BUFFERS or status["current"] != "off":
        return None
    return Observation(
        Severity.INFO,
        f"shared_buffers is {shown(buffers)} without huge pages.",
        "Each process maps them page by page. Reserve vm.nr_hugepages, and restart.",
    )


def _buffers_share(rows: Rows) -> Observation | None:
    row = rows[0]
    share = row["shared_buffers"] / row["total"]
    if share <= LARGEST_SHARE:
        return None
    return Observation(
        Severity.WARNING,
        f"shared_buffers is {size(row['shared_buffers'])}, {share:.0%} of the machine's "
        f"{size(row['total'])}.",
        "What lies in it lies in the kernel's cache, too. A quarter is usual.",
        applied("shared_buffers", f"{row['total'] // 4 // MIB}MB", restarts=True),
    )


def _memory(rows: Rows) -> Observation | None:
    row = rows[0]
    most = row["shared_buffers"] + row["connections"] * row["work_mem"]
    if most <= row["total"]:
        return None
    fitting = max(1, (row["total"] - row["shared_buffers"]) // 2 // row["connections"] // MIB)
    return Observation(
        Severity.WARNING,
        f"{row['connections']} connections with a work_mem of {size(row['work_mem'])} each, and "
        f"shared_buffers of {size(row['shared_buffers'])}, are {size(most)}; the machine has "
        f"{size(row['total'])}.",
        "The kernel kills the server when they are used. Lower max_connections (PgBouncer shares "
        "few) or work_mem.",
        applied("work_mem", f"{fitting}MB", restarts=False),
    )


CHECKS = (
    Check(
        "effective-cache-size",
        "effective_cache_size",
        "warning where it is less than shared_buffers",
        SETTINGS,
        _cache_size,
    ),
    Check(
        "huge-pages",
        "Huge pages",
        "info from 8 GiB of shared_buffers on, without them",
        Query("settings", since=17),
        _huge_pages,
    ),
    Check(
        "shared-buffers-share",
        "shared_buffers and the machine's memory",
        "warning above 40 %; only a superuser can know",
        MEMORY,
        _buffers_share,
    ),
    Check(
        "memory-limit",
        "work_mem, max_connections and the machine's memory",
        "warning where they are more than the machine has; only a superuser can know",
        MEMORY,
        _memory,
    ),
)
