"""What libraries say reaches the log as events: bounded, and without their text."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from triage import logs
from triage.settings import LogSettings


@pytest.fixture
def configured() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure(LogSettings(format="json"), process="listener")
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_library_lines_are_bounded_and_without_text(configured: None, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(100):
        logging.getLogger("pynetdicom.fsm").error("Doe^Jane %s", number)
    logging.getLogger("other").warning("Doe^Jane")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert [line["logger"] for line in lines] == ["pynetdicom.fsm"] * logs.LIBRARY_LINES_A_MINUTE + ["other"]
    assert "Doe" not in str(lines)


def test_warnings_are_events_without_their_text(configured: None, capsys: pytest.CaptureFixture[str]) -> None:
    """pydicom quotes values that do not fit: they are a peer's, and may be a patient's."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # pytest has its own capture in between
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", stacklevel=1)

    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["logger"] == "py.warnings"
    assert "Doe" not in line
