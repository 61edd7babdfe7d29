"""Whether the embedded server's memory stays flat: many Predicts, then many changes of version.

`python -m benchmarks.endpoint_memory`. The resident memory of the server's process is read after each tenth of the
work.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click
import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.endpoint import Server, client_of, running_server
from inference.serving_client import MODEL_STATUS
from inference.serving_messages import serving_message

STATE_END = 50  # tensorflow.serving.ModelVersionStatus.END
console = Console()


@click.command()
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=Path("models"), show_default=True)
@click.option("--model", "model_name", default="ich_unet", show_default=True, help="Name of the model.")
@click.option("--predicts", default=10_000, show_default=True, help="Predicts of one slab.")
@click.option("--switches", default=20, show_default=True, help="Changes of version.")
def measure(models: Path, model_name: str, predicts: int, switches: int) -> None:
    """Measure the server's resident memory over Predicts and changes of version."""
    table = Table("after", "resident MB")
    with tempfile.TemporaryDirectory(prefix="ich-triage-bench-") as folder:
        base = Path(folder) / model_name
        newest = max((child for child in (models / model_name).iterdir() if child.name.isdecimal()), key=_number)
        shutil.copytree(newest, base / "1")
        with running_server(Path(folder)) as server:
            _predict(table, server, model_name, predicts)
            _switch(table, server, model_name, base, switches)
    console.print(table)


def _predict(table: Table, server: Server, model_name: str, predicts: int) -> None:
    with client_of(server, model_name) as client:
        spec, version = client.spec()
        hu = np.zeros((1, spec.rows, spec.columns, 2 * spec.context + 1), np.int16)
        for done in range(predicts + 1):
            client.predict(hu, spec=spec, version=version)
            if done % max(1, predicts // 10) == 0:
                table.add_row(f"{done} Predicts", f"{resident_mb(server.pid):.0f}")


def _switch(table: Table, server: Server, model_name: str, base: Path, switches: int) -> None:
    with client_of(server, model_name) as client:
        for version in range(2, switches + 2):
            shutil.copytree(base / str(version - 1), base / f".tmp-{version}")
            (base / f".tmp-{version}").rename(base / str(version))
            while client.spec()[1] != version:
                time.sleep(0.1)
            shutil.rmtree(base / str(version - 1))
            _wait_until_unloaded(server, model_name, version - 1)
            spec, _ = client.spec()
            hu = np.zeros((1, spec.rows, spec.columns, 2 * spec.context + 1), np.int16)
            client.predict(hu, spec=spec, version=version)
            if version % 2:
                table.add_row(f"{version - 1} changes of version", f"{resident_mb(server.pid):.0f}")


def _wait_until_unloaded(server: Server, model_name: str, version: int) -> None:
    request = serving_message("GetModelStatusRequest")()
    request.model_spec.name, request.model_spec.version.value = model_name, version
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        while True:
            raw: bytes = channel.unary_unary(MODEL_STATUS)(request.SerializeToString(), timeout=60)
            if serving_message("GetModelStatusResponse").FromString(raw).model_version_status[0].state == STATE_END:
                return
            time.sleep(0.05)


def resident_mb(pid: int) -> float:
    """Read the resident memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _number(folder: Path) -> int:
    return int(folder.name)


if __name__ == "__main__":
    measure()
