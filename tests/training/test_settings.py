"""The configuration of a run: wrong ones get one clear error."""

import pytest

from training.settings import read_settings, source_key
from triage.errors import ConfigError

WHOLE = """
folder = "runs/a"
[optimiser]
steps = 7
[[source]]
kind = "phantom"
count = 3
"""


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_values_come_from_the_file_and_the_rest_from_defaults(tmp_path):
    settings = read_settings(write(tmp_path, WHOLE))

    assert (settings.optimiser.steps, settings.optimiser.batch) == (7, 16)
    assert settings.source[0].count == 3


def test_unknown_key_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown key optimiser\.stepz; known are batch, .*steps"):
        read_settings(write(tmp_path, WHOLE.replace("steps", "stepz")))


def test_unknown_key_of_a_source_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown key source\.0\.phantom\.counts; known are bleed_ml"):
        read_settings(write(tmp_path, WHOLE.replace("count", "counts")))


def test_value_out_of_range_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"optimiser\.steps: Input should be greater than 0"):
        read_settings(write(tmp_path, WHOLE.replace("steps = 7", "steps = 0")))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_settings(tmp_path / "none.toml")


def test_text_that_is_no_toml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no TOML"):
        read_settings(write(tmp_path, "folder = "))


def test_weights_do_not_change_the_converted_data(tmp_path):
    light = read_settings(write(tmp_path, WHOLE))
    heavy = read_settings(write(tmp_path, WHOLE + "bleed_weight = 9.0\n"))
    other = read_settings(write(tmp_path, WHOLE + "seed = 9\n"))

    key = source_key(light.source[0], light.grid)

    assert source_key(heavy.source[0], heavy.grid) == key
    assert source_key(other.source[0], other.grid) != key
