"""How many cores a process may use: what it is bound to, and the quota of the control groups around it."""

import os
import signal
from pathlib import Path

import pytest

from pmexp import process
from pmexp.process import STOP_SIGNALS, cores_of_each, cpu_quota, heard_stop_signals, usable_cores
from pmexp.training.stop_signals import stop_requests


class Machine:
    """Made-up files: what Linux says of a process, and its control groups."""

    def __init__(self, folder: Path) -> None:
        self.process, self.groups = folder / "self", folder / "cgroup"
        self.process.mkdir()
        self.groups.mkdir()

    def place(self, cgroup: str, root: str, kind: str) -> None:
        (self.process / "cgroup").write_text(f"7:pids:/\n{cgroup}\n")
        (self.process / "mountinfo").write_text(
            f"23 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n"
            f"32 23 0:29 {root} {self.groups} ro,relatime shared:9 - {kind}\n"
        )

    def write(self, group: str, **files: str) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("_", ".", 1)).write_text(text + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_2_counts_the_least_of_a_group_and_those_around_it(machine: Machine) -> None:
    machine.place("0::/kubepods/pod/box", "/", "cgroup2 cgroup2 rw,nsdelegate")
    machine.write("kubepods/pod/box", cpu_max="400000 100000")
    assert cpu_quota(machine.process) == 4
    machine.write("kubepods", cpu_max="75000 50000")
    machine.write("kubepods/pod", cpu_max="max 100000")
    machine.write("another", cpu_max="10000 100000")
    assert cpu_quota(machine.process) == 1.5


@pytest.mark.parametrize("root", ["/", "/.."])  # the latter where the mount is older than the namespace
def test_version_2_in_a_namespace_of_its_own_has_the_quota_at_the_mount(machine: Machine, root: str) -> None:
    machine.place("0::/", root, "cgroup2 cgroup rw")
    machine.write(".", cpu_max="250000 100000")
    assert cpu_quota(machine.process) == 2.5


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_version_1_shows_a_container_its_own_group_under_the_machines_path(
    machine: Machine, controllers: str
) -> None:
    machine.place(f"4:{controllers}:/docker/box/inner", "/docker/box", f"cgroup cgroup rw,{controllers}")
    machine.write(".", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")
    machine.write("inner", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert cpu_quota(machine.process) == 2
    machine.write("inner", cpu_cfs_quota_us="50000", cpu_cfs_period_us="100000")
    assert cpu_quota(machine.process) == 0.5


def test_other_controllers_and_systems_without_control_groups_set_no_limit(machine: Machine) -> None:
    assert cpu_quota(machine.process) is None
    machine.place("4:cpuset:/", "/", "cgroup cgroup rw,cpuset")
    machine.write(".", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")
    assert cpu_quota(machine.process) is None
    machine.place("4:cpu:/", "/", "cgroup cgroup rw,cpu")
    machine.write(".", cpu_cfs_quota_us="-1")
    assert cpu_quota(machine.process) is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 64), (100.0, 64), (2.0, 2), (1.2, 2), (0.3, 1)])
def test_a_quota_is_rounded_up_and_adds_no_core(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(process, "cpu_quota", lambda: quota)
    assert usable_cores() == cores


@pytest.mark.parametrize("end_of_terminal", [signal.SIG_DFL, signal.SIG_IGN], ids=["plain", "nohup"])
def test_the_end_of_a_terminal_is_heard_unless_that_is_to_be_outlived(
    end_of_terminal: signal.Handlers,
) -> None:
    before = signal.signal(signal.SIGHUP, end_of_terminal)
    try:
        assert (signal.SIGHUP in heard_stop_signals()) == (end_of_terminal == signal.SIG_DFL)
        assert {*STOP_SIGNALS} - {*heard_stop_signals()} <= {signal.SIGHUP}
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop == ["SIGHUP"] * (end_of_terminal == signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_share_a_quota_also_where_each_is_bound_to_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(process, "cpu_quota", lambda: None)
    assert cores_of_each(4) == 16
    monkeypatch.setattr(process, "cpu_quota", lambda: 8.0)
    assert cores_of_each(4) == 2
