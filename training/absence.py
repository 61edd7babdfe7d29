"""Ends a process whose fellow workers never come, from outside: TensorFlow waits where nothing of Python runs.

Run by `clusters.py`: python -m training.absence PID SECONDS HOST:PORT...
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

CONNECT_S = 2.0  # a host that does not answer a connection in this time counts as absent
WATCH_S = 1.0  # between looks at whether the waiting process still lives


def main(arguments: Sequence[str]) -> None:
    """Wait; then say who is absent and end the process. Its joining, or its end, ends this one."""
    process, wait_s, addresses = int(arguments[0]), float(arguments[1]), arguments[2:]
    give_up_at = time.monotonic() + wait_s
    while (left_s := give_up_at - time.monotonic()) > 0:
        time.sleep(min(WATCH_S, left_s))
        if os.getppid() != process:
            return
    sys.stderr.write(f"Error: {described(addresses, wait_s)}\n")
    sys.stderr.flush()
    os.kill(process, signal.SIGKILL)  # TensorFlow takes SIGTERM for itself, and waits on


def described(addresses: Sequence[str], wait_s: float) -> str:
    """Name the workers that do not answer."""
    absent = [address for address in addresses if not answers(address)]
    named = ", ".join(absent) if absent else f"one of {', '.join(addresses)}"
    return (
        f"After {wait_s:g} s no worker answers at {named}. Start one process for each of {len(addresses)} workers, or "
        "raise cluster.wait_s."
    )


def answers(address: str) -> bool:
    """Try to connect."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
