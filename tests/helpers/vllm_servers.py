"""Real vLLM servers on 127.0.0.1: started, killed for real, and started again on the same port.

server = VllmServer(model, log)
with running(server):                # or several, which start at the same time
    server.url                       # http://127.0.0.1:PORT
    server.kill()                    # SIGKILL, of all its processes
    server.start()                   # on the same port; server.wait() until it answers
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

POOLING = ("--runner", "pooling", "--convert", "embed", "--pooler-config")
POOLER = {"task": "token_embed", "use_activation": False}
_START = 300.0  # seconds; half a minute on an idle machine
_END = 20.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several servers would bind to the same core
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a process less
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",  # the engine's process has the imports behind it
}


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def _end_with_parent() -> None:
    """Also where this process is killed, no server stays behind."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class VllmServer:
    """A server of one model. Nothing runs before `start`.

    Args:
        model: A model folder. On a CPU vLLM takes head sizes of 32 and more.
        log: The file that its output is added to.
        pooling: Whether it gives hidden states; otherwise it writes text.
        name: Of the model on the server.
        arguments: More of `vllm serve`; a later one wins.
        environment: More variables.

    Attributes:
        url: Its address, the same after every start.
    """

    def __init__(
        self,
        model: Path,
        log: Path,
        *,
        pooling: bool = True,
        name: str = "teacher",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {**ENVIRONMENT, **(environment or {})}
        own: dict[str, str] = {
            "--model": str(model),
            "--served-model-name": name,
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--dtype": "float32",
            "--max-model-len": "256",
            "--kv-cache-memory-bytes": str(2**26),  # neither measured nor warmed up, as with a size given
        }
        self._arguments = [*(part for pair in own.items() for part in pair), "--enforce-eager"]
        self._arguments += [*POOLING, json.dumps(POOLER)] if pooling else []
        self._arguments += arguments

    def start(self) -> None:
        """Begin to start it; `wait` ends when it answers."""
        # -P: the working directory is no place to import from. Two packages of vLLM, for a CPU and a GPU, have this module.
        command = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", *self._arguments]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | self._environment
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait(self) -> None:
        """Until it answers. RuntimeError, with the end of its output, where it ends before that, or does not within minutes."""
        limit = time.monotonic() + _START
        while not self.answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > limit:
                said = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-30:])
                raise RuntimeError(f"{self.url} {'ended' if ended else 'does not answer'}:\n{said}")
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it as `kill -9` does, with the processes that it started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, sent: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for each in (sent, signal.SIGKILL):
            try:
                os.killpg(process.pid, each)
                process.wait(timeout=_END)
            except ProcessLookupError:
                process.wait()
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def running(*servers: VllmServer) -> Iterator[None]:
    """The servers, started together and stopped at the end, also where one does not start."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait()
        yield
