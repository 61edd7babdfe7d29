"""Settings: default, then TOML, then environment; a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from triage.errors import ConfigError
from triage.settings import load_settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "triage.toml"
    path.write_text(text)
    return path


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, '[listener]\nport = 104\nae_title = "SITE"\n[worker]\nlease_s = 7\n')
    monkeypatch.setenv("ICH_TRIAGE_LISTENER__PORT", "11113")

    settings = load_settings(config)

    assert (settings.listener.port, settings.listener.ae_title) == (11113, "SITE")
    assert (settings.worker.lease_s, settings.worker.max_attempts) == (7.0, 3)


def test_unknown_key_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"listener\.prt is no setting; known here: .*port"):
        load_settings(written(tmp_path, "[listener]\nprt = 104\n"))


def test_unknown_section_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"listner is no setting; known here: listener, log"):
        load_settings(written(tmp_path, "[listner]\nport = 104\n"))


def test_misspelt_section_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICH_TRIAGE_LISTNER__PORT", "104")

    with pytest.raises(ConfigError, match="ICH_TRIAGE_LISTNER__PORT sets nothing; sections known here: listener"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[listener]\nport = 70000\n", "listener.port"),
        ('[listener]\nae_title = "SEVENTEEN-LETTERS"\n', "listener.ae_title"),
        ("[worker]\nlease_s = 0\n", "worker.lease_s"),
        ('[log]\nlevel = "loud"\n', "log.level"),
    ],
)
def test_value_that_does_not_fit_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_settings(written(tmp_path, text))


def test_file_that_is_no_toml_and_file_that_is_missing_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no TOML"):
        load_settings(written(tmp_path, "port: 104"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml")


def test_settings_cannot_be_changed_after_start() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="frozen"):
        load_settings().listener.port = 1  # type: ignore[misc]
