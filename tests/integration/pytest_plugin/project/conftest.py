"""Tells the outer test which run of the plugin this is."""

import os
from pathlib import Path

Path(os.environ["MEETING_PLACE"], "run").write_text(os.environ["PENSTOCK_TEST_RUN"])
