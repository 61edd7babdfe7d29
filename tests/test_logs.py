"""Logs: no patient gets through, whatever is logged and however it breaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from triage import logs
from triage.settings import LogSettings

PATIENT = "Doe^Jane"


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[structlog.stdlib.BoundLogger]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    logs.configure(LogSettings(level="debug", format="json"), process="worker")
    yield structlog.get_logger()
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    logging.getLogger().handlers, logging.getLogger().level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_listed_keys_pass_and_others_are_withheld(log, capsys) -> None:
    log.info("study_read", study_id=7, flagged=True, patient_name=PATIENT)

    [line] = lines(capsys)
    assert (line["study_id"], line["flagged"], line["process"]) == (7, True, "worker")
    assert line["patient_name"] == logs.BLANK


def test_traceback_keeps_type_and_place_but_no_message_and_no_locals(log, capsys) -> None:
    def breaks(patient_name: str) -> None:
        raise ValueError(f"cannot read {patient_name}")

    try:
        breaks(PATIENT)
    except ValueError:
        log.exception("study_broke_the_worker")

    [line] = lines(capsys)
    assert line["error_type"] == "ValueError"
    assert "breaks:" in line["exception"]
    assert PATIENT not in json.dumps(line)


def test_what_a_library_logs_passes_without_its_text(log, capsys) -> None:
    logging.getLogger("pydicom").warning("Invalid value for VR PN: %r", PATIENT)

    [line] = lines(capsys)
    assert (line["logger"], line["level"]) == ("pydicom", "warning")
    assert PATIENT not in json.dumps(line)


def test_level_below_the_setting_is_silent(capsys) -> None:
    logs.configure(LogSettings(level="warning", format="json"), process="worker")

    structlog.get_logger().info("study_read")

    assert lines(capsys) == []
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
