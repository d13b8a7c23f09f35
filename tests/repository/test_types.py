"""The types that src declares fit each other."""

import subprocess
import sys

from conftest import ROOT


def test_src_is_well_typed():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
