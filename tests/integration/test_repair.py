"""``pycore doctor --repair``: what was taken away is made again, what nobody has is taken away, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.linux import netlink, nftables, nftelements
from pycore.linux.look import Look
from pycore_network import links
from pycore_network.ruleset import PLACES
from support.command import Command, wait_readable

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp"), pytest.mark.needs("libnftables")]

PORT = 47400
ADDRESS = f"127.{os.getpid() >> 16 & 127 | 128}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""Our own, so that other runs of these tests may have the same ports beside us."""

SERVER = "import socket; s = socket.create_server(('', 80)); [c.sendall(b'here') for c, _ in iter(s.accept, None)]"

SPEC = f"""
name = "shop"
[container.web]
image = "host"
command = ["python3", "-c", "{SERVER}"]
stop_signal = "SIGKILL"
network.ports = ["{ADDRESS}:{PORT}:80"]
storage.volumes = ["data:/data"]
resources = {{ memory = "64M" }}
[volume.data]
"""


@pytest.fixture
def shop(pycore: Command) -> Command:
    """An app that answers on a port of the host."""
    pycore("apply", pycore.write(SPEC))
    assert answer() == b"here"
    return pycore


def instance(pycore: Command) -> str:
    return Host(Look(), pycore.run_dir, pycore.data_dir).instance


def ask() -> bytes:
    try:
        with socket.create_connection((ADDRESS, PORT), timeout=5) as connection:
            return connection.recv(10)
    except OSError:
        return b""


def answer() -> bytes:
    """What the container says, once it listens."""
    deadline = time.monotonic() + 20
    while not (said := ask()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return said


def refused() -> bool:
    return not ask()


def events(pycore: Command) -> list[dict[str, Any]]:
    """What has happened so far."""
    past = pycore("events", "--json", "--since", "1h", "--until", str(time.time()))
    return [json.loads(line) for line in past.splitlines()]


def findings(pycore: Command) -> list[str]:
    """What ``doctor`` says, which changes nothing."""
    return [finding["what"] for finding in json.loads(pycore.run("doctor", "--json").out)["findings"]]


def repaired(pycore: Command) -> list[str]:
    return [row["what"] for row in pycore.json("doctor", "--repair")["findings"] if row["mended"]]


def bridge_of(pycore: Command) -> str:
    return next(iter(nftelements.elements(f"inet {instance(pycore)}", "bridges"))).strip('"')


def cgroups(pycore: Command) -> list[Path]:
    return [Path(path) for path in pycore.json("inspect", "shop/web")["cgroups"]]


def test_all_is_well(shop: Command) -> None:
    assert findings(shop) == []
    assert "all is well" in shop("doctor", "--repair")


def test_a_flushed_ruleset_is_put_back_by_the_supervisor(shop: Command) -> None:
    nftables.run(f"delete table inet {instance(shop)}; delete table bridge {instance(shop)}")
    assert answer() == b"here"
    assert findings(shop) == []


def test_elements_that_were_taken_out(shop: Command) -> None:
    places = [place for place in PLACES["inet"] if place.startswith("ports")]
    nftables.run("\n".join(f"flush map inet {instance(shop)} {place}" for place in places))
    assert refused()
    (said,) = findings(shop)
    assert "not in force: publish" in said
    assert refused()  # to say it has changed nothing
    assert repaired(shop) == [said]
    assert answer() == b"here"
    assert findings(shop) == []


def test_a_bridge_that_was_deleted(shop: Command) -> None:
    netlink.send([links.delete_link(bridge_of(shop))])
    assert refused()
    assert len(findings(shop)) == 2
    assert len(repaired(shop)) == 3  # the default route goes with the old device, when there is a new one
    assert answer() == b"here"
    assert findings(shop) == []


def test_limits_that_were_lifted(shop: Command) -> None:
    limit = next(path for group in cgroups(shop) if (path := group / "pids.max").exists())
    before = limit.read_text()
    limit.write_text("max")
    (said,) = findings(shop)
    assert "pids.max" in said
    repaired(shop)
    assert limit.read_text() == before


def test_what_nobody_has(shop: Command) -> None:
    groups = [group.parent / "c0ffee" for group in cgroups(shop)]
    for group in groups:
        group.mkdir()
    lease = next((shop.run_dir / "networks").glob("*/leases")) / "10.208.3.200"
    lease.write_text("c0ffee")
    port = shop.run_dir / "ports" / "tcp-127.0.0.1-47401"
    port.write_text("c0ffee gone/gone")
    strays = [shop.run_dir / "containers" / "c0ffee", shop.data_dir / "containers" / "c0ffee"]
    for stray in strays:
        (stray / "layer").mkdir(parents=True)
    table = f"inet {instance(shop)}"
    nftables.run(f"add element {table} ports {{ tcp . 47402 : 10.208.3.200 . 80 }}")
    subprocess.run(
        ["ip", "link", "add", "pcc0ffee", "type", "veth", "peer", "name", "pcc0ffee-x"], check=True, capture_output=True
    )
    try:
        subprocess.run(["ip", "link", "set", "pcc0ffee", "master", bridge_of(shop)], check=True)
        kept = [shop.data_dir / "volumes" / "gone" / "data", shop.data_dir / "cache" / "x"]
        for path in kept:
            path.mkdir(parents=True)
        said = findings(shop)
        assert len(said) == len(groups) + len(strays) + 4, said
        assert lease.exists()
        assert sorted(repaired(shop)) == sorted(said)
        assert not any(path.exists() for path in (*groups, lease, port, *strays))
        assert all(path.exists() for path in kept)
        assert "tcp . 47402" not in nftelements.elements(table, "ports")
        assert "pcc0ffee" not in Look().links()
        assert findings(shop) == []
        assert answer() == b"here"
    finally:
        subprocess.run(["ip", "link", "del", "pcc0ffee"], check=False, capture_output=True)


def test_what_another_pycore_has_is_not_touched(shop: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "other")
    other.directory.mkdir()
    try:
        other("apply", other.write(SPEC.replace(str(PORT), "47403")))
        assert findings(shop) == []
        shop("doctor", "--repair")
        assert findings(other) == []
    finally:
        other.end()


def test_looking_starts_no_supervisor_and_changes_nothing(pycore: Command) -> None:
    pycore.run("doctor")
    assert not pycore.run_dir.exists()
    assert not pycore.data_dir.exists()


def test_a_record_that_cannot_be_read_stops_nothing_else(shop: Command) -> None:
    shop("run", "-d", "--name", "other", "host", "sleep", "1000")
    (record,) = (row for row in shop.json("ps") if row["container"].startswith("shop"))
    kill_supervisor(shop)
    (shop.run_dir / "containers" / record["id"] / "state.jsonl").write_text("no record\n")
    assert [row["container"] for row in shop.json("ps")] == ["other/other"]
    assert any("is damaged" in words for words in findings(shop))
    assert any("is damaged" in words for words in repaired(shop))
    assert findings(shop) == []
    assert refused()
    assert not Path(f"/proc/{record['pid']}").exists()
    shop("apply", shop.write(SPEC))
    assert answer() == b"here"
    (again,) = (row for row in shop.json("ps") if row["container"].startswith("shop"))
    assert again["id"] == record["id"], "of the same id, and yet the end of the one before is not its own"
    shop("down", "shop")
    words = [event["what"] for event in events(shop) if event.get("id") == record["id"]]
    assert words == ["create", "start", "create", "start", "die", "destroy"]
    assert events(shop)[-1]["what"] == "down"
    assert not Path(f"/proc/{again['pid']}").exists()


def test_an_app_that_cannot_be_read(shop: Command) -> None:
    kill_supervisor(shop)
    file = shop.data_dir / "apps" / "shop.json"
    file.write_text("[]\n")
    assert len(shop.json("ps")) == 1
    assert any("is damaged" in words for words in findings(shop))
    repaired(shop)
    assert not file.exists()
    assert answer() == b"here"
    shop("apply", shop.write(SPEC))
    assert answer() == b"here"


def test_what_an_applied_app_keeps_over_a_boot_is_not_left_over(shop: Command) -> None:
    """The run dir goes with the boot, the layer stays for the container to come back."""
    (layer,) = (shop.data_dir / "containers").iterdir()
    shop("stop", "shop/web")
    kill_supervisor(shop)
    kept = shop.directory / "run-before"
    shop.run_dir.rename(kept)
    try:
        assert not [words for words in findings(shop) if str(layer) in words]
        assert layer.exists()
    finally:
        shutil.rmtree(shop.run_dir, ignore_errors=True)
        kept.rename(shop.run_dir)


def kill_supervisor(pycore: Command) -> None:
    pid = pycore.supervisor()
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait_readable(pidfd, 20)
    os.close(pidfd)
