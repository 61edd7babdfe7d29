"""The worker's health check: alive by its own report, whatever the model does."""

from __future__ import annotations

import socket
import time

import pytest
from click.testing import CliRunner

from inference.worker_health import worker_health, youngest_report_s
from triage.ledger import Ledger
from triage.ledger.studies import WorkerReport
from triage.ledger.work import WorkQueue


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "triage.toml"
    path.write_text(f'[storage]\nfolder = "{tmp_path}"\n[worker]\nlease_s = 10\n')
    return path


@pytest.fixture
def queue(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield WorkQueue(ledger)
    ledger.close()


def check(config):
    return CliRunner().invoke(worker_health, ["--config", str(config)])


def report(queue, *, host, age_s, model_available=True):
    queue.report(owner=f"{host}:17", model_available=model_available, detail="", now=time.time() - age_s)


def test_worker_that_reported_within_its_lease_is_healthy(config, queue):
    report(queue, host=socket.gethostname(), age_s=1)

    assert check(config).exit_code == 0


def test_worker_whose_model_is_away_is_healthy(config, queue):
    report(queue, host=socket.gethostname(), age_s=1, model_available=False)

    assert check(config).exit_code == 0


def test_worker_silent_for_longer_than_its_lease_is_not(config, queue):
    report(queue, host=socket.gethostname(), age_s=25)

    done = check(config)

    assert done.exit_code == 1
    assert "25 s old; expected at most 10" in done.output


def test_another_hosts_worker_does_not_count(config, queue):
    report(queue, host="elsewhere", age_s=1)

    done = check(config)

    assert done.exit_code == 1
    assert "No worker of this host" in done.output


def test_no_ledger_is_unhealthy_and_none_is_made(config, tmp_path):
    done = check(config)

    assert done.exit_code == 1
    assert not (tmp_path / "ledger.sqlite").exists()


def test_youngest_report_of_a_host_counts():
    reports = [WorkerReport(f"a:{pid}", seen_at, True, "") for pid, seen_at in ((1, 70.0), (2, 95.0))]

    assert youngest_report_s(reports, host="a", now=100.0) == 5.0
    assert youngest_report_s(reports, host="b", now=100.0) is None
