"""The command `ich-triage serve`: the embedded model server."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import click

from inference.memory import keep_large_blocks
from triage import logs
from triage.errors import ServingError, TriageError
from triage.settings import ServerSettings, load_settings
from triage.stop_signal import StopSignal


@click.command(
    epilog="Example: ich-triage serve --models models --port 8500",
    context_settings={"show_default": True},
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
@click.option("--models", "models_folder", type=click.Path(path_type=Path), help="Folder of models. [default: models]")
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="gRPC port; 0 takes a free one. [default: 8500]")
@click.option("--rest-port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one. [default: 8501]")
def serve(config: Path | None, **options: Any) -> None:
    """Serve the models of a folder as TF Serving does, until stopped.

    Once the models can answer, one line of JSON on stdout tells the ports: {"grpc_port": 8500, "rest_port": 8501}.
    """
    try:
        settings = load_settings(config)
        logs.configure(settings.log, process="server")
        given = {name: value for name, value in options.items() if value is not None}
        serve_until_stopped(settings.server.model_copy(update=given))
    except TriageError as error:
        raise click.ClickException(str(error)) from error


def serve_until_stopped(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        TriageError: the server cannot start.
    """
    stop = StopSignal.on_termination()
    keep_large_blocks()
    from inference.model_server.server import ModelServer  # TensorFlow takes seconds: not before the settings are sound

    gc.collect()
    gc.freeze()  # TensorFlow's own objects stay in any case: without them, collecting a version's takes milliseconds
    server = ModelServer(settings)
    try:
        ports = server.start(give_up=stop)
    except ServingError:
        if stop.is_set():
            return  # told to stop while it waited for a model
        raise
    click.echo(json.dumps({"grpc_port": ports.grpc, "rest_port": ports.rest}))
    sys.stdout.flush()
    stop.wait()
    server.stop()
