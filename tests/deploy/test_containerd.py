"""containerd's own reading of the drop-ins: only what is in the effective configuration counts."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from testnode import programs

pytestmark = pytest.mark.node

DROP_INS = Path(__file__).parents[2] / "deploy" / "containerd"
WRITTEN_BY_HAND = """
version = 3
imports = ["{directory}/*.toml"]

[plugins.'io.containerd.nri.v1.nri']
  disable = true
  [plugins.'io.containerd.nri.v1.nri'.default_validator]
    enable = false
    reject_unconfined_seccomp_adjustment = true

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'mine'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.mine]
    runtime_type = 'io.containerd.runc.v2'
"""
"""A main configuration that is against us in everything."""


@pytest.fixture(scope="module")
def effective(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plugins' settings, as containerd would run with them."""
    main = tmp_path_factory.mktemp("containerd") / "config.toml"
    main.write_text(WRITTEN_BY_HAND.format(directory=DROP_INS))
    command = [str(programs.containerd_directory() / "containerd"), "--config", str(main), "config", "dump"]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    plugins: dict[str, Any] = tomllib.loads(dump)["plugins"]
    return plugins


def test_every_setting_of_the_drop_in_is_in_effect(effective: dict[str, Any]) -> None:
    given = tomllib.loads((DROP_INS / "50-seccomp-floor.toml").read_text())["plugins"]["io.containerd.nri.v1.nri"]
    nri = effective["io.containerd.nri.v1.nri"]
    validator = given.pop("default_validator")
    assert nri | given == nri
    assert nri["default_validator"] | validator == nri["default_validator"]


def test_the_handler_is_added_and_the_others_stay(effective: dict[str, Any]) -> None:
    containerd = effective["io.containerd.cri.v1.runtime"]["containerd"]
    assert containerd["default_runtime_name"] == "mine"
    assert containerd["runtimes"].keys() >= {"mine", "floored"}
