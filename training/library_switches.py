"""What two libraries take from the environment alone, set before they are imported.

Nothing is read here: settings still come from `triage.settings` and a run's file.
"""

from __future__ import annotations

import os
import sys

from triage.errors import ConfigError

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend(name: str) -> None:
    """Let Keras compute with that backend, in this process and those it starts.

    Raises:
        ConfigError: Keras was imported already and computes with another one.
    """
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else name
    if running != name:
        raise ConfigError(f"Keras computes with {running} already; start {name} in a process of its own.")
    os.environ["KERAS_BACKEND"] = name


def keep_tracking_private() -> None:
    """Let MLflow report nothing to its makers, and give up on a server in seconds: training waits meanwhile."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
