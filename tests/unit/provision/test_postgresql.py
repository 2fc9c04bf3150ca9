"""PostgreSQL's settings by machine, and what is found out of this one."""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import SettingsError
from penstock.provision.machine import GIB, Disk, Machine
from penstock.provision.postgresql import fragment, parameters

BASE = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "64MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "4MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}


def values(memory: str, cores: int = 2, disk: str = "ssd") -> dict[str, str]:
    return {each.name: each.value for each in parameters(Machine.of(memory, cores, disk))}


def test_a_machine_of_4_gb_has_the_base_values() -> None:
    assert values("4GB") == BASE


@pytest.mark.parametrize(
    ("memory", "cores", "expected"),
    [
        ("1GB", 1, ["50", "256MB", "768MB", "64MB", "7MB", "4MB"]),
        ("2GB", 2, ["100", "256MB", "1GB", "64MB", "7MB", "5MB"]),
        ("16GB", 4, ["200", "4GB", "12GB", "1GB", "16MB", "19MB"]),
        ("64GB", 16, ["200", "16GB", "48GB", "4GB", "16MB", "75MB"]),
        ("256GB", 64, ["200", "64GB", "192GB", "8GB", "16MB", "248MB"]),
        ("24TB", 1024, ["200", "6144GB", "15360GB", "8GB", "16MB", "5140MB"]),
    ],
)
def test_others_are_computed(memory: str, cores: int, expected: list[str]) -> None:
    assert list(values(memory, cores).values())[:6] == expected


def test_a_hard_disk_seeks_and_four_cores_work_in_parallel() -> None:
    found = values("16GB", 6, "hdd")

    assert (found["random_page_cost"], found["effective_io_concurrency"]) == ("4", "2")
    assert found["max_parallel_workers"] == "6"
    assert found["max_parallel_workers_per_gather"] == "3"
    assert "max_worker_processes" not in values("16GB", 3)


def test_each_line_has_its_reason() -> None:
    lines = fragment(Machine.of("16GB", 4)).splitlines()[2:]

    assert len(lines) == 2 * len(parameters(Machine.of("16GB", 4)))
    assert all(line.startswith("# ") for line in lines[::2])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("4 apples", 2, "ssd"), "memory"),
        (("100MB", 2, "ssd"), "memory"),
        (("4GB", 0, "ssd"), "cores"),
        (("4GB", 2, "tape"), "disk"),
    ],
)
def test_what_is_no_machine_is_refused_by_name(given: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{named}="):
        Machine.of(*given)


def test_connections_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"^max_connections=5: .* 10 to 10000"):
        parameters(Machine.of("4GB", 2), 5)


@pytest.mark.parametrize(
    ("limit", "rotational", "memory", "disk"),
    [
        ("max", "0", 8, Disk.SSD),
        (str(2 * GIB), "1", 2, Disk.HDD),
        ("", "", 8, Disk.SSD),
        ("max", "virtual", 8, Disk.SSD),
    ],
)
def test_this_machine_is_found_out(
    tmp_path: Path, limit: str, rotational: str, memory: int, disk: Disk
) -> None:
    device = tmp_path.stat().st_dev
    block = tmp_path / f"sys/devices/{'virtio0' if rotational == 'virtual' else 'sata'}/block"
    link = tmp_path / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(block)
    for path, text in [
        (tmp_path / "proc/meminfo", f"MemTotal:       {8 * 1024**2 - 300_000} kB\n"),
        (tmp_path / "sys/fs/cgroup/memory.max", limit),
        (block / "queue/rotational", rotational.replace("virtual", "1")),
    ]:
        path.parent.mkdir(parents=True)
        path.write_text(text)

    found = Machine.here(tmp_path, tmp_path)

    assert (found.memory, found.disk) == (memory * GIB, disk)
    assert found.cores >= 1
