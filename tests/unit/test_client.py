"""The command's own part, against a socket that plays the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pycore.client import SOCKET_FILE
from pycore.launch.address import listen

ASK = (
    "import sys; from pycore.client import Option, Settings, ask; "
    "sys.exit(ask(Option(['--run-dir', sys.argv[1], 'wait', 'x']), Settings('wait')))"
)
MUCH = "x" * 100_000
"""Some of it in a request, and it takes more than a socket holds."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_the_request_is_sent_is_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, **{f"MUCH{each}": MUCH for each in range(10)}}
    with listen(tmp_path, SOCKET_FILE) as listener:
        client = subprocess.Popen([sys.executable, "-c", ASK, tmp_path], env=environment, stdin=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            size = int.from_bytes(connection.recv(4), "big")
            assert size > 10 * len(MUCH)
            client.send_signal(number)
            while size:
                data = connection.recv(min(size, 1 << 16))
                assert data, "it died in the middle of its request"
                size -= len(data)
            assert connection.recv(1) == bytes((number,))
            connection.sendall((7).to_bytes(4, "big"))
            assert client.wait(20) == 7
