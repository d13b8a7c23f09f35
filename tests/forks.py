"""Python's commands in forks of one process that has imported what takes long: fifty short commands import torch once.

    python     an executable that stands in for Python where it is asked for `-m MODULE`, `-c CODE` or a file
    call       what the executable does: it hands the command over, waits for its end, and ends alike
    serve      forks for every command. The fork takes over its streams, folder and environment, and imports the project's modules
               from its PYTHONPATH, as a process of its own would; what it starts by sys.executable, it starts so, too

Whatever else Python is asked for, Python itself does. Who kills the executable kills the fork.
"""

import os
import signal
import sys
from contextlib import suppress

IMPORTED = """
    PIL.Image fontTools.subset hypothesis jinja2 jsonschema matplotlib.pyplot numpy pandas pypandoc scipy.stats seaborn sklearn.datasets
    snakemake.cli snakemake.workflow snakemake.dag snakemake.scheduling.job_scheduler torch torch._dynamo torch.distributed tqdm typst yaml
"""


def python() -> str:
    """The path of the executable; its server ends with this process."""
    import atexit
    import shlex
    import shutil
    import socket
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="forks")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    words = [sys.executable, __file__, "serve", f"{folder}/python", str(listener.fileno())]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, env=os.environ | settings, pass_fds=[listener.fileno()])
    listener.close()
    with open(f"{folder}/python", "w", encoding="utf-8") as file:
        here = shlex.join([sys.executable, "-IS", __file__, "call", f"{folder}/socket"])
        file.write(f'#!/bin/sh\nexec {here} "$@"\n')
    os.chmod(f"{folder}/python", 0o755)

    def end() -> None:
        server.communicate()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return f"{folder}/python"


def call(address: str, words: list[str]) -> None:
    import json
    import socket

    while words[:1] == ["-B"]:
        del words[0]
    if words[:1] not in (["-c"], ["-m"]) and not words[0].endswith(".py"):
        os.execv(sys.executable, [sys.executable, *words])
    status = b""
    streams = [number for number in map(int, os.listdir("/dev/fd")) if inheritable(number)]
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        order = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "streams": streams}
        text = json.dumps(order).encode()
        socket.send_fds(line, [len(text).to_bytes(8, "big")], streams)
        line.sendall(text)
        with suppress(ConnectionResetError):
            status = line.recv(1)
    if not status:  # the fork was killed
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(status[0])


def inheritable(number: int) -> bool:
    """Whether it is a stream that Python itself would have been given; that of the listing is gone."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def serve(executable: str, listening: int) -> None:
    import atexit
    import importlib
    import select
    import socket

    fork: list = []  # in a fork: the line to its executable, and its status

    def report() -> None:
        """The last thing that a fork does: it was registered first."""
        if len(fork) == 2:  # and this is no fork of the fork
            line, status = fork
            if not sys.stdout.closed:
                sys.stdout.flush()
            line.send(bytes([status]))
            os._exit(status)

    atexit.register(report)
    for module in IMPORTED.split():
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, bury)
    listener = socket.socket(fileno=listening)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # closed, as whoever started this has ended
            return
        line = socket.socket(fileno=moved(listener.accept()[0].detach()))
        if os.fork() == 0:
            listener.close()
            fork.extend([line, 1])
            os.register_at_fork(after_in_child=lambda: fork and fork.pop(0).close())
            fork[1] = become(line, executable)
            return
        line.close()


def bury(*_) -> None:
    """Wait for the forks that have ended, so that their processor time is this process's, and then that of the tests."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def moved(number: int) -> int:
    """The stream under a number that no command asks for."""
    import fcntl

    high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 500)
    os.close(number)
    return high


def become(line, executable: str) -> int:
    """Be the command that is handed over, and return its exit status."""
    import json
    import multiprocessing.spawn
    import random
    import socket
    import threading
    import traceback

    def end_together() -> None:
        line.recv(1)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(line, 8, 253)
    order = json.loads(line.makefile("rb").read(int.from_bytes(size, "big")))
    for number, wanted in zip([moved(number) for number in streams], order["streams"], strict=True):
        os.dup2(number, wanted)
        os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        settings = {"encoding": getattr(sys, name).encoding, "errors": "backslashreplace" if name == "stderr" else "strict"}
        setattr(sys, name, os.fdopen(number, mode, closefd=False, **settings))
    threading.Thread(target=end_together, daemon=True).start()
    random.seed()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.executable = executable
    multiprocessing.spawn.set_executable(executable)
    multiprocessing.process.ORIGINAL_DIR = order["folder"]
    try:
        execute(*order["words"])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def execute(what: str, *words: str) -> None:
    import runpy
    import types

    first = "" if what == "-c" else os.getcwd() if what == "-m" else os.path.dirname(os.path.abspath(what))
    sys.path[:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if what == "-c":
        sys.argv = ["-c", *words[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif what == "-m":
        sys.argv = [*words]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [what, *words]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call(sys.argv[2], sys.argv[3:])
    else:
        serve(sys.argv[2], int(sys.argv[3]))
