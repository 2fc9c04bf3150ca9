"""The web part without the framework."""

import subprocess
import sys

import pytest

IMPORT = "import sys; sys.modules['fastapi'] = None; import penstock; import penstock.fastapi"


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "pip install 'penstock[fastapi]'" in done.stderr
