"""Stopping by signal: however often it is told, and whatever the main thread does at that moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from triage.stop_signal import StopSignal

ROOT = Path(__file__).resolve().parents[2]
WAITS = """
import time
from triage.stop_signal import StopSignal
stop = StopSignal.on_termination()
print("ready", flush=True)
while not stop.wait(0.0005):
    pass
time.sleep(2)  # more signals come while it stops
print("stopped")
"""

WAITS_ELSEWHERE_INTERRUPTED = """
import signal, threading, time
from triage.stop_signal import StopSignal
stop = StopSignal.on_termination()
def interrupt():
    time.sleep(0.3)  # the main thread waits by then
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=interrupt).start()
print(stop.wait(), stop.wait(10))
"""


def test_wait_ends_when_it_is_set_from_another_thread() -> None:
    stop = StopSignal()
    threading.Timer(0.05, stop.set).start()

    assert not stop.is_set()
    assert stop.wait(10)
    assert stop.is_set()


def test_wait_gives_up_after_its_time() -> None:
    assert not StopSignal().wait(0.01)


def test_a_storm_of_signals_stops_a_process_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    for _ in range(300):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0002)

    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "stopped\n")


def test_a_signal_that_interrupts_no_wait_ends_it_all_the_same() -> None:
    command = [sys.executable, "-c", WAITS_ELSEWHERE_INTERRUPTED]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=True)

    assert done.stdout == "True True\n"
