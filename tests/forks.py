"""Python's commands in forks of one process that has imported what takes long: fifty short commands import torch once.

    python     an executable that stands in for Python where it is asked for `-m MODULE WORDS`
    call       what the executable does: it hands the command over, waits for its end, and ends alike
    serve      forks for every command. The fork takes over its streams, folder and environment, and imports the project's modules
               from its PYTHONPATH, as a process of its own would

Whatever else Python is asked for (`-c`, a file), Python itself does. Who kills the executable kills the fork.
"""

import os
import signal
import sys

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

    if words[:1] != ["-m"]:
        os.execv(sys.executable, [sys.executable, *words])
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        order = json.dumps({"words": words[1:], "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(line, [len(order).to_bytes(8, "big")], [0, 1, 2])
        line.sendall(order)
        status = line.recv(1)
    if not status:  # the fork was killed
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(status[0])


def serve(executable: str, listening: int) -> None:
    import atexit
    import importlib
    import select
    import socket

    fork: list = []  # in a fork: the line to its executable, and its status

    def report() -> None:
        """The last thing that a fork does: it was registered first."""
        if fork:
            line, status = fork
            sys.stdout.flush()
            line.send(bytes([status]))
            os._exit(status)

    atexit.register(report)
    for module in IMPORTED.split():
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for forks
    listener = socket.socket(fileno=listening)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # closed, as whoever started this has ended
            return
        line, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            fork.extend([line, 1])
            fork[1] = become(line, executable)
            return
        line.close()


def become(line, executable: str) -> int:
    """Be the command that is handed over, and return its exit status."""
    import json
    import random
    import runpy
    import socket
    import threading
    import traceback

    def end_together() -> None:
        line.recv(1)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(line, 8, 3)
    order = json.loads(line.makefile("rb").read(int.from_bytes(size, "big")))
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        os.dup2(streams[number], number)
        os.close(streams[number])
        settings = {"encoding": getattr(sys, name).encoding, "errors": "backslashreplace" if name == "stderr" else "strict"}
        setattr(sys, name, os.fdopen(number, mode, closefd=False, **settings))
    threading.Thread(target=end_together, daemon=True).start()
    random.seed()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    module, *words = order["words"]
    sys.executable, sys.argv = executable, [module, *words]
    sys.path[:1] = [order["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call(sys.argv[2], sys.argv[3:])
    else:
        serve(sys.argv[2], int(sys.argv[3]))
