"""Which versions are served, and in which order they come and go."""

from __future__ import annotations

from pathlib import Path

from inference.model_server.model_versions import (
    ManagedVersion,
    Phase,
    Step,
    VersionPolicy,
    aspire,
    next_step,
    versions_on_disk,
    wanted_versions,
    without_ended,
)

ON_DISK = {version: Path(str(version)) for version in (1, 2, 10)}


def managed(**phases: str) -> dict[int, ManagedVersion]:
    """`v2="ready"` is wanted; `g1="ready"` was given up."""
    return {
        int(name[1:]): ManagedVersion(int(name[1:]), Path(name[1:]), name[0] == "v", Phase(phase))
        for name, phase in phases.items()
    }


def test_versions_are_numbers_with_leading_zeros_allowed(tmp_path):
    for name in ("1", "00000123", "2.0", ".tmp-7", "v3", "99999999999999999999"):
        (tmp_path / name).mkdir()

    assert versions_on_disk(tmp_path) == {1: tmp_path / "1", 123: tmp_path / "00000123"}


def test_the_latest_by_number_is_wanted():
    assert list(wanted_versions(ON_DISK, VersionPolicy())) == [10]
    assert sorted(wanted_versions(ON_DISK, VersionPolicy(latest=2))) == [2, 10]


def test_all_or_certain_versions_can_be_wanted():
    assert sorted(wanted_versions(ON_DISK, VersionPolicy(every=True))) == [1, 2, 10]
    assert sorted(wanted_versions(ON_DISK, VersionPolicy(specific=(2, 3)))) == [2]


def test_the_new_one_is_loaded_before_the_old_one_goes():
    assert next_step(managed(g1="ready", v2="new").values()) == Step(2, load=True)
    assert next_step(managed(g1="ready", v2="loading").values()) is None
    assert next_step(managed(g1="ready", v2="ready").values()) == Step(1, load=False)


def test_the_old_one_stays_while_the_new_one_is_broken():
    assert next_step(managed(g1="ready", v2="error").values()) is None


def test_everything_goes_when_nothing_is_wanted():
    assert next_step(managed(g1="ready").values()) == Step(1, load=False)


def test_of_several_given_up_ones_one_stays_until_the_new_one_is_ready():
    assert next_step(managed(g1="ready", g2="ready", v3="loading").values()) == Step(1, load=False)
    assert next_step(managed(g2="ready", v3="loading").values()) is None


def test_the_highest_new_version_is_loaded_first():
    assert next_step(managed(v1="new", v3="new", v2="ready").values()) == Step(3, load=True)


def test_a_version_wanted_again_waits_until_it_is_unloaded():
    assert aspire(managed(g1="ready", v2="ready"), {1: Path("1")}) is None


def test_a_broken_version_is_not_tried_again_under_its_number():
    after = aspire(managed(g1="ready", v2="error"), {2: Path("2")})

    assert after is not None
    assert next_step(after.values()) is None


def test_ended_versions_are_forgotten_once_nobody_wants_them():
    assert sorted(without_ended(managed(g1="disabled", g2="error", v3="error", g4="ready"))) == [3, 4]
