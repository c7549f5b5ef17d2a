"""config/systemd: units that systemd understands, and that leave the service little to do."""

import re
import shutil
import subprocess

import pytest

from harness.proxy import REPOSITORY, binary

UNITS = REPOSITORY / "config" / "systemd"
# As --threshold takes it: 100 is a service without any restriction.
EXPOSURE_LIMIT = 20


@pytest.fixture
def units(place):
    """The units with the program that is tested, since systemd looks whether it is there."""
    assert shutil.which("systemd-analyze"), "install Debian's package systemd"
    for name in ("redis-auth-proxy.service", "redis-auth-proxy.socket"):
        text = (UNITS / name).read_text()
        (place / name).write_text(text.replace("/usr/local/bin/redis-auth-proxy", str(binary())))
    return place


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def version() -> int:
    return int(re.match(r"systemd (\d+)", analyze("--version").stdout).group(1))


def test_systemd_has_nothing_to_say_against_the_units(units):
    run = analyze("verify", *sorted(units.glob("redis-auth-proxy.*")))
    assert run.returncode == 0, run.stderr
    # Only what is about our units: the machine has its own.
    complaints = [line for line in run.stderr.splitlines() if "redis-auth-proxy" in line]
    if version() < 253:
        # The line behind it is for these.
        complaints = [line for line in complaints if not line.endswith(": notify-reload")]
    assert complaints == []


def test_the_service_is_exposed_to_little(units):
    run = analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}",
        units / "redis-auth-proxy.service",
    )
    assert run.returncode == 0, run.stdout


def test_what_the_proxy_needs_is_left_to_it():
    text = (UNITS / "redis-auth-proxy.service").read_text()
    settings = dict(
        line.split("=", 1) for line in text.splitlines() if line and line[0] not in "#["
    )
    assert "AF_NETLINK" in settings["RestrictAddressFamilies"].split()
    assert "PrivateUsers" not in settings and "PrivateNetwork" not in settings
    assert "~@resources" not in text
    # Its own listeners and the socket units' agree with the smallest configuration.
    socket = (UNITS / "redis-auth-proxy.socket").read_text()
    minimal = (REPOSITORY / "config" / "minimal.yaml").read_text()
    (address,) = re.findall(r"^ListenStream=(.+)$", socket, re.MULTILINE)
    assert f"address: {address}" in minimal
