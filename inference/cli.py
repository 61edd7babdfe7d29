"""The command `ich-triage work`."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from inference.memory import keep_large_blocks
from triage import logs
from triage.errors import TriageError
from triage.settings import Settings, WorkerSettings, load_settings
from triage.stop_signal import StopSignal

if TYPE_CHECKING:
    from inference.serving_client import ServingClient
    from inference.worker_metrics import WorkerMetrics

log = structlog.get_logger()


@click.command(epilog="Example: ich-triage work --config triage.toml")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; default: defaults and environment only.")
@click.option("--once", is_flag=True, help="End when no study is waiting, instead of waiting for more.")
def work(config: Path | None, once: bool) -> None:
    """Read queued studies through the model until stopped; the study in hand is finished first.

    Any number of workers may run, on this host or on others that share the storage folder. With `worker.metrics_port`
    one line of JSON on stdout tells where metrics and health are: {"metrics_port": 9464}.
    """
    try:
        settings = load_settings(config)
        logs.configure(settings.log, process="worker")
        run(settings, once=once)
    except TriageError as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, *, once: bool) -> None:
    """Start one worker and run it until SIGTERM or SIGINT."""
    from inference.worker import Worker
    from inference.worker_metrics import WorkerMetrics
    from triage.ledger import Ledger
    from triage.ledger.studies import Studies
    from triage.ledger.work import WorkQueue

    keep_large_blocks()
    options = settings.worker
    stop = StopSignal.on_termination()
    ledger = Ledger(settings.storage.ledger_path)
    with ExitStack() as stack:
        network = stack.enter_context(client_of(options))
        metrics = WorkerMetrics(network)
        if options.metrics_port is not None:
            stack.enter_context(probes_of(options, metrics))
        worker = Worker(
            queue=WorkQueue(ledger, max_attempts=options.max_attempts),
            studies=Studies(ledger),
            folder=settings.storage.folder,
            network=network,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            lease_s=options.lease_s,
            retry_after_s=options.retry_after_s,
            metrics=metrics,
            keep_maps=settings.worklist.research_mode,
        )
        log.info("worker_started", model=options.model_name, endpoint=options.endpoint)
        if once:
            while worker.run_once() and not stop.is_set():
                pass
        else:
            worker.run(stop, poll_interval_s=options.poll_interval_s)
    ledger.close()
    log.info("worker_stopped")


def client_of(options: WorkerSettings) -> ServingClient:
    """Give the client that the settings ask for.

    Raises:
        ConfigError: there is no endpoint, or its TLS settings do not fit.
    """
    from inference.channel import worker_credentials
    from inference.serving_client import ServingClient

    return ServingClient(
        options.endpoint,
        options.model_name,
        timeout_s=options.request_timeout_s,
        credentials=worker_credentials(options),
        server_name=options.tls_server_name,
    )


@contextmanager
def probes_of(options: WorkerSettings, metrics: WorkerMetrics) -> Iterator[None]:
    """Serve metrics and health; one line of JSON on stdout tells the port.

    Raises:
        ConfigError: the port cannot be opened.
    """
    from inference.worker_probes import WorkerProbes

    probes = WorkerProbes(options.metrics_host, options.metrics_port or 0, metrics)
    probes.start()
    click.echo(json.dumps({"metrics_port": probes.port}))
    sys.stdout.flush()
    try:
        yield
    finally:
        probes.stop()
