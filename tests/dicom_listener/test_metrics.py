"""Metrics and health, as a monitoring host reads them."""

from __future__ import annotations

import errno
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dicom_listener.listener import Listener
from dicom_listener.metrics import Metrics
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import Running, push, queued, running, settings_for
from tests.dicom_listener.raw_peer import RawPeer, associate_rq, p_data, store_rq
from tests.dicom_listener.test_durability import FailingDisk
from triage.errors import ConfigError


def get(running: Running, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{running.listener.metrics_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    series = ct_series(slices=30)
    broken = ct_series(slices=1)
    del broken[0].StudyInstanceUID
    with running(tmp_path, metrics_port=0) as listener:
        push(listener.port, series)
        push(listener.port, broken)
        with RawPeer(listener.port) as peer:
            peer.send(associate_rq([(b"1.2.840.10008.1.1", [b"1.2.840.10008.1.2"])], called=b"OTHER"))
            peer.receive()
        with RawPeer(listener.port) as peer:
            peer.associate()
            peer.send(p_data(1, 3, store_rq("1.2.3", has_data=False)))
            peer.receive()
            peer.release()
        queued(listener, series[0].StudyInstanceUID)
        status, text = get(listener, "/metrics")

    assert status == 200
    assert 'ich_listener_instances_total{status="0x0000"} 30' in text
    assert 'ich_listener_instances_total{status="0xA900"} 1' in text
    assert 'ich_listener_instances_total{status="0xC000"} 1' in text
    assert f"ich_listener_bytes_total {sum(len(encoded(ds)) for ds in series)}" in text
    assert "ich_listener_associations_total 3" in text
    assert 'ich_listener_rejections_total{code="1/1/7",reason="called AE title"} 1' in text
    assert 'ich_listener_studies_complete_total{completed_by="geometry"} 1' in text
    assert "ich_listener_store_seconds_count 32" in text
    assert re.search(r"^ich_listener_disk_free_bytes \d", text, re.MULTILINE)
    assert "Doe" not in text
    assert str(series[0].StudyInstanceUID) not in text


def test_histogram_is_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.02, 9.0):
        metrics.stored(0, 10, seconds)

    text = metrics.exposition()

    assert 'ich_listener_store_seconds_bucket{le="0.002"} 1' in text
    assert 'ich_listener_store_seconds_bucket{le="0.025"} 2' in text
    assert 'ich_listener_store_seconds_bucket{le="5"} 2' in text
    assert 'ich_listener_store_seconds_bucket{le="+Inf"} 3' in text


def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    disk = FailingDisk("none", errno.ENOSPC, after=0)
    with running(tmp_path, disk=disk, min_free_bytes=10_000_001, metrics_port=0) as listener:
        well = get(listener, "/health")
        disk.step = "low"
        ill = get(listener, "/health")

    assert (well[0], json.loads(well[1])) == (200, {"status": "ok", "reasons": [], "notes": []})
    assert ill[0] == 503
    assert json.loads(ill[1])["reasons"] == ["the disk is nearly full: images are refused"]


def test_other_addresses_are_not_found(tmp_path: Path) -> None:
    with running(tmp_path, metrics_port=0) as listener:
        assert get(listener, "/")[0] == 404


def test_metrics_port_in_use_is_named(tmp_path: Path, listener: Running) -> None:
    second = Listener(settings_for(tmp_path / "second", metrics_port=listener.port))

    with pytest.raises(ConfigError, match=r"listener\.metrics_port"):
        second.start()
