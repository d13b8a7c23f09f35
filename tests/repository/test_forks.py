"""A command in a fork is the command: what it says, how it ends, and that it ends with whoever called it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, python

ECHO = """
import os, sys
print(sys.argv[1:], sys.stdin.read(), os.environ["SAID"], os.getcwd(), "é")
print("to the other stream", file=sys.stderr)
sys.exit(3)
"""
MODULES = {
    "echo": ECHO,
    "fails": "raise SystemExit('why')",
    "ends": "print('not flushed', end='')",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "starts": """
import multiprocessing, os, subprocess, sys

def square(x):
    return x * x, os.environ["SAID"]

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(pool.map(square, [3, 4]))
    print(subprocess.run([sys.executable, "-m", "fails"], capture_output=True).stderr)
""",
    "stays": "import os, time\nprint(os.getpid(), flush=True)\nwhile True: time.sleep(60)",
}


@pytest.fixture
def modules(tmp_path):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return {"cwd": tmp_path, "env": os.environ | {"SAID": "by the caller", "PYTHONPATH": str(ROOT / "src")}}


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "echo", "a b", "--c"],
        ["-m", "fails"],
        ["-m", "ends"],
        ["-m", "killed"],
        ["-m", "secondlook", "run", "demo"],
        ["-m", "secondlook", "list", "--help"],
        ["-m", "starts"],
        ["starts.py"],
        ["-c", "import sys; print(sys.argv); sys.exit(2)", "a"],
        ["-W", "error", "-c", "import warnings; warnings.warn('ends it')"],
    ],
)
def test_it_says_and_ends_what_a_process_of_its_own_would(modules, words):
    done = [
        subprocess.run([path, *words], input=b"given", capture_output=True, **modules) for path in (sys.executable, python())
    ]
    own, fork = ((found.returncode, found.stdout, found.stderr) for found in done)
    assert fork == own


def test_it_is_killed_with_the_executable_that_was_called(modules):
    called = subprocess.Popen([python(), "-m", "stays"], stdout=subprocess.PIPE, **modules)
    fork = int(called.stdout.readline())
    assert fork != called.pid
    called.kill()
    assert called.wait() == -signal.SIGKILL
    called.stdout.close()
    while True:  # until it is gone
        try:
            os.kill(fork, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
