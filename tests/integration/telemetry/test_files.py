"""The files that workers keep, and what may become of them."""

from pathlib import Path

from penstock.telemetry.layout import LAYOUT
from penstock.telemetry.worker_file import WorkerFile


def test_the_disk_has_room_for_all_that_a_worker_will_write(tmp_path: Path) -> None:
    file = WorkerFile.create(tmp_path, "name")

    assert file.path.stat().st_blocks * 512 >= LAYOUT.size

    file.close()
