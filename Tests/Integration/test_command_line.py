"""The commands as an operator meets them: what they print, where, and how they end."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness.ports import free_port
from harness.process import Process, wait_until
from harness.proxy import REPOSITORY, binary
from harness.resp import Client, eventually

OK, USAGE, UNAVAILABLE, CONFIGURATION = 0, 64, 69, 78


def call(*arguments, environment=None, timeout=20):
    """Runs a command to its end, with nothing of ours in its environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
    return subprocess.run(
        [binary(), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=inherited | (environment or {}),
    )


def write_configuration(place: Path, change=None, password="unused") -> Path:
    """A right configuration in front of an address that refuses connections."""
    password_file = place / "app.password"
    password_file.write_text(password)
    password_file.chmod(0o600)
    configuration = {
        "upstreams": {"cache": {"address": f"127.0.0.1:{free_port()}"}},
        "users": {
            "app": {"upstream": "cache", "credentials": {"password_file": str(password_file)}}
        },
        "listeners": [
            {"address": "127.0.0.1:0", "identities": [{"any": True, "user": "app"}]},
        ],
    }
    if change:
        change(configuration)
    file = place / "proxy.yaml"
    file.write_text(json.dumps(configuration, indent=1))
    return file


def start_run(place: Path, *arguments, environment=None) -> Process:
    environment = os.environ | (environment or {})
    return Process(
        [binary(), "run", *arguments], place / "proxy.log", environment=environment
    )


# Help and usage


def test_version_is_a_version():
    run = call("--version")
    assert run.returncode == OK
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run.stdout)


@pytest.mark.parametrize("command", [[], ["run"], ["wait"], ["check"], ["doctor"], ["demo"]])
def test_help_is_on_standard_output_and_names_what_there_is(command):
    run = call(*command, "--help")
    assert run.returncode == OK
    assert run.stderr == ""
    if not command:
        names = ("run", "wait", "check", "doctor", "demo")
        assert all(f"  {name} " in run.stdout for name in names)
    if command == ["run"]:
        for flag in (
            "--config --listen --upstream --server-name --ca-file --user --password-file --mode"
            " --threads --drain-timeout --log-level --log-format --connection-test"
        ).split():
            assert f"\n  {flag} " in run.stdout
        assert re.search(r"\n  78  the configuration cannot be used", run.stdout)
    if command == ["check"]:
        assert "upstreams.NAME.tls.ca_file" in run.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run"], "give --config FILE, or --listen"),
        (["check"], "give --config FILE, or --listen"),
        (["doctor"], "give --config FILE, or --listen"),
        (["run", "--config", "x", "--listen", "127.0.0.1:1"], "--config and --listen exclude"),
        (["run", "--config", "x", "--ca-file", "y"], "--config and --ca-file exclude"),
        (["run", "--no-such-flag"], "--no-such-flag"),
        (["serve"], "serve"),
        (["demo", "--port", "0"], "--port: wanted 1 to 65456, got 0"),
        (["demo", "--rotate-every", "1ms"], "--rotate-every: wanted at least 200ms"),
        (["demo", "--rotate-every", "often"], "often"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(arguments, words):
    run = call(*arguments)
    assert run.returncode == USAGE
    assert words in run.stderr
    assert run.stdout == ""


# check


def test_check_says_what_a_right_configuration_maps_to(place):
    file = write_configuration(place)
    run = call("check", "--config", file)
    assert (run.returncode, run.stderr) == (OK, "")
    first, second = run.stdout.splitlines()
    assert first == "configuration is valid"
    assert re.fullmatch(
        r"  127\.0\.0\.1:0 \(multiplexed\): any client → app @ cache"
        r" \(127\.0\.0\.1:\d+, TLS 1\.2\+, verified\)",
        second,
    )


def test_check_prints_every_problem_with_its_place(place):
    file = place / "wrong.yaml"
    file.write_text("threads: 0\nupstream: {}\nlisteners: []\nusers:\n  app: { password: x }\n")
    run = call("check", "--config", file)
    assert run.returncode == CONFIGURATION
    assert run.stdout == ""
    *problems, summary = run.stderr.splitlines()
    assert len(problems) == 7
    assert all(re.match(re.escape(str(file)) + r":\d+:\d+: error: ", line) for line in problems)
    assert summary == "7 errors: configuration is not valid"
    assert f"{file}:2:1: error: the configuration: wanted a known key, got \"upstream\":" \
        " did you mean upstreams?" in problems


def test_check_prints_warnings_and_succeeds(place):
    def change(configuration):
        configuration["upstreams"]["cache"]["tls"] = "off"
        configuration["listeners"][0]["address"] = "0.0.0.0:0"
        configuration["users"]["app"]["credentials"] = {"password_file": "/nonexistent/app"}

    run = call("check", "--config", write_configuration(place, change))
    assert run.returncode == OK
    warnings = run.stderr.splitlines()
    assert len(warnings) == 3 and all(": warning: " in line for line in warnings)
    assert run.stdout.startswith("configuration is valid\n")


@pytest.mark.parametrize("name", ["minimal.yaml", "full.yaml"])
def test_check_accepts_the_examples_that_come_with_the_project(name):
    run = call("check", "--config", REPOSITORY / "config" / name)
    assert run.returncode == OK
    # The files that they name are not on this machine.
    assert all("cannot be read now" in line or "is not set here" in line
               for line in run.stderr.splitlines())


def test_check_takes_flags_in_place_of_a_file(place):
    password_file = place / "password"
    password_file.write_text("x")
    flags = ["--listen", "127.0.0.1:0", "--listen", f"unix:{place}/s", "--upstream",
             "rediss://cache.example", "--user", "app", "--password-file", password_file,
             "--mode", "dedicated"]
    run = call("check", *flags)
    assert run.returncode == OK
    assert run.stdout.splitlines()[1:] == [
        "  127.0.0.1:0 (dedicated): any client → app @ upstream"
        " (cache.example:6379, TLS 1.2+, verified)",
        f"  unix:{place}/s (dedicated): any client → app @ upstream"
        " (cache.example:6379, TLS 1.2+, verified)",
    ]


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_password_in_a_url_is_refused_and_not_repeated(command):
    run = call(command, "--listen", "127.0.0.1:0", "--user", "app", "--password-file", "/x",
               "--upstream", "rediss://app:hunter2@cache:6379")
    assert run.returncode == CONFIGURATION
    assert run.stderr.startswith("--upstream: error: wanted rediss://HOST:PORT")
    assert "hunter2" not in run.stdout + run.stderr


# run


def test_run_refuses_a_wrong_configuration_and_prints_every_problem(place):
    file = place / "wrong.yaml"
    file.write_text("threads: 0\nmode: x\n")
    run = call("run", "--config", file)
    assert run.returncode == CONFIGURATION
    assert len(run.stderr.splitlines()) == 5


def test_run_without_its_file_says_so():
    run = call("run", "--config", "/nonexistent/proxy.yaml")
    assert run.returncode == CONFIGURATION
    assert run.stderr == (
        "/nonexistent/proxy.yaml: error: cannot be read: No such file or directory\n"
    )


def test_run_wants_the_variables_that_passwords_come_from(place):
    def change(configuration):
        configuration["users"]["app"]["credentials"] = {"password_env": "NOT_SET_ANYWHERE"}

    run = call("run", "--config", write_configuration(place, change))
    assert run.returncode == CONFIGURATION
    assert "wanted the environment variable NOT_SET_ANYWHERE, got none" in run.stderr


def test_run_says_which_address_it_cannot_have(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]

        def change(configuration):
            configuration["listeners"][0]["address"] = address

        run = call("run", "--config", write_configuration(place, change))
    assert run.returncode == UNAVAILABLE
    assert address in run.stderr


def test_run_says_which_certificate_it_cannot_use(place):
    (place / "ca.pem").write_text("no certificate")

    def change(configuration):
        configuration["upstreams"]["cache"]["tls"] = {"ca_file": str(place / "ca.pem")}

    run = call("run", "--config", write_configuration(place, change))
    assert run.returncode == CONFIGURATION
    assert str(place / "ca.pem") in run.stderr


def test_run_prints_a_line_for_each_listener_with_its_real_port(place):
    def change(configuration):
        listener = configuration["listeners"][0]
        configuration["listeners"] += [
            listener | {"address": f"unix:{place}/s.sock", "mode": "dedicated"}
        ]

    proxy = start_run(place, "--config", write_configuration(place, change))
    wait_until(lambda: proxy.log().count("listening on ") == 2, proxy, "both listeners")
    lines = [line for line in proxy.log().splitlines() if "listening on " in line]
    found = re.search(
        r"listening on (127\.0\.0\.1:(\d+)) \(multiplexed\): any client → app @ cache ", lines[0]
    )
    assert found and int(found[2]) > 0
    with socket.create_connection(("127.0.0.1", int(found[2]))):
        pass
    assert f"listening on unix:{place}/s.sock (dedicated): any client → app @ cache" in lines[1]
    assert proxy.stop() == OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_with_success_when_it_is_told_to(place, number):
    proxy = start_run(place, "--config", write_configuration(place))
    wait_until(lambda: "listening on " in proxy.log(), proxy, "listens")
    assert proxy.stop(number) == OK
    assert proxy.log().splitlines()[-1].endswith(" info redis-auth-proxy: stopped")


def test_the_file_may_be_named_by_the_environment(place):
    file = write_configuration(place)
    proxy = start_run(place, environment={"REDIS_AUTH_PROXY_CONFIG": str(file)})
    wait_until(lambda: "listening on " in proxy.log(), proxy, "listens")
    assert proxy.stop() == OK


def test_a_flag_goes_over_the_environment_and_the_environment_over_the_file(place):
    def change(configuration):
        configuration["log"] = {"format": "text"}

    file = write_configuration(place, change)
    environment = {"REDIS_AUTH_PROXY_LOG_FORMAT": "json"}
    proxy = start_run(place, "--config", file, environment=environment)
    wait_until(lambda: "listening on " in proxy.log(), proxy, "listens")
    assert proxy.stop() == OK
    records = [json.loads(line) for line in proxy.log().splitlines()]
    assert {"time", "level", "label", "message"} <= set(records[0])

    proxy = start_run(
        place, "--config", file, "--log-format", "text", environment=environment
    )
    wait_until(lambda: "listening on " in proxy.log(), proxy, "listens")
    assert proxy.stop() == OK
    assert not proxy.log().startswith("{")


def test_a_wrong_variable_is_named(place):
    run = call("check", "--config", write_configuration(place),
               environment={"REDIS_AUTH_PROXY_THREADS": "all"})
    assert run.returncode == CONFIGURATION
    assert run.stderr.startswith("$REDIS_AUTH_PROXY_THREADS: error: threads: wanted a number")


# demo


class Demo:
    """A running demo with its directory inside the test's own."""

    def __init__(self, place: Path, *arguments, wait=True):
        self.place = place
        self.process = Process(
            [binary(), "demo", *arguments],
            place / f"demo-{time.monotonic_ns()}.log",
            environment=os.environ | {"TMPDIR": str(place)},
        )
        if wait:
            wait_until(lambda: "Ctrl-C ends the demo" in self.log(), self.process, "demo is up")

    def log(self) -> str:
        return self.process.log()

    @property
    def ports(self) -> dict:
        found = re.findall(r"127\.0\.0\.1:(\d+)  (app|producer|consumer)\b", self.log())
        return {name: int(port) for port, name in found}

    @property
    def directory(self) -> Path:
        (found,) = self.place.glob("redis-auth-proxy-demo-*")
        return found

    @property
    def server_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (pid,) = children.split()
        return int(pid)

    def client(self, user: str) -> Client:
        return Client(("127.0.0.1", self.ports[user]))


@pytest.fixture
def start_demo(place):
    started = []

    def start(*arguments, **options) -> Demo:
        demo = Demo(place, *arguments, **options)
        started.append(demo)
        return demo

    yield start
    for demo in started:
        if demo.process.is_running:
            demo.process.stop()


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z"


def assert_nothing_left(place: Path):
    assert list(place.glob("redis-auth-proxy-demo-*")) == []


def test_the_demo_does_what_it_prints(start_demo, place):
    demo = start_demo("--port", free_port())
    with demo.client("producer") as producer, demo.client("consumer") as consumer:
        assert producer.value("SET", "greeting", "hello") == b"OK"
        assert consumer.value("GET", "greeting") == b"hello"
        assert producer.value("GET", "greeting").startswith(b"NOPERM")
        assert consumer.value("SET", "greeting", "bye").startswith(b"NOPERM")
    with demo.client("app") as app:
        assert app.value("ACL", "WHOAMI") == b"app"
    # The commands to paste, as printed.
    command = re.search(r"  (redis-cli .* --tls .* PING) +#", demo.log())[1]
    answer = subprocess.run(command.split(), capture_output=True, text=True, timeout=10)
    assert "NOAUTH" in answer.stdout
    assert demo.process.stop(signal.SIGINT) == OK
    assert_nothing_left(place)


def test_the_demo_rotates_under_its_users_and_keeps_its_secrets(start_demo, place):
    demo = start_demo("--port", free_port(), "--rotate-every", "300ms")
    files = {name: demo.directory / f"{name}.password" for name in demo.ports}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files.values())
    assert demo.directory.stat().st_mode & 0o777 == 0o700
    seen = set()
    with demo.client("app") as app:
        for number in range(1, 4):
            eventually(lambda: f"rotation {number}: new passwords for app, producer, consumer"
                       in demo.log(), what=f"rotation {number}")
            assert app.value("SET", "n", str(number)) == b"OK"
            seen.add(files["app"].read_text())
    assert len(seen) >= 3
    for pid in (demo.process.pid, demo.server_pid):
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(password in arguments for password in seen)
    # The server keeps hashes, and its user for rotation may do little else.
    users = (demo.directory / "users.acl").read_text()
    assert users.startswith("user default off\n")
    assert not any(password in users for password in seen)
    assert demo.process.stop() == OK
    assert not any(password in demo.log() for password in seen)
    assert "rotation failed" not in demo.log()


def test_the_demo_takes_free_ports_when_its_own_are_in_use(start_demo):
    first = start_demo()
    second = start_demo("--port", str(first.ports["app"]))
    assert set(first.ports.values()).isdisjoint(second.ports.values())
    assert "in use" in second.log()
    for demo in (first, second):
        with demo.client("app") as app:
            assert app.value("PING") == b"PONG"


def test_the_demo_ends_by_itself(start_demo, place):
    demo = start_demo("--port", free_port(), "--run-for", "200ms")
    assert demo.process.wait() == OK
    assert_nothing_left(place)


@pytest.mark.parametrize("milliseconds", [30, 100, 200, 300, 500])
def test_the_demo_cleans_up_whenever_it_is_interrupted(start_demo, place, milliseconds):
    demo = start_demo("--port", free_port(), wait=False)
    # From here on the signals are blocked.
    wait_until(lambda: "Starting" in demo.log(), demo.process, "demo starts")
    time.sleep(milliseconds / 1000)  # the moment is what is varied; any moment must do
    assert demo.process.stop(signal.SIGINT) == OK
    assert_nothing_left(place)


def test_the_server_does_not_outlive_a_demo_that_is_killed(start_demo):
    demo = start_demo("--port", free_port())
    server = demo.server_pid
    assert is_alive(server)
    demo.process.kill()
    eventually(lambda: not is_alive(server), what="the server is gone")


@pytest.mark.parametrize(
    "missing, package",
    [("redis-server", "redis-server"), ("redis-cli", "redis-tools"), ("openssl", "openssl")],
)
def test_the_demo_says_what_to_install(place, missing, package):
    programs = place / "bin"
    programs.mkdir()
    for name in ("redis-server", "redis-cli", "openssl", "setpriv"):
        if name != missing:
            (programs / name).symlink_to(f"/usr/bin/{name}")
    run = call("demo", environment={"PATH": str(programs), "TMPDIR": str(place)})
    assert run.returncode == UNAVAILABLE
    assert run.stderr == (
        f"wanted the program {missing}, found none in PATH: apt-get install {package}\n"
    )
    assert_nothing_left(place)


def test_the_demo_cleans_up_when_its_server_does_not_start(place):
    programs = place / "bin"
    programs.mkdir()
    for name in ("redis-cli", "openssl"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    (programs / "redis-server").symlink_to("/bin/false")
    run = call("demo", environment={"PATH": str(programs), "TMPDIR": str(place)})
    assert run.returncode == 71
    assert "redis-server does not start" in run.stderr
    assert_nothing_left(place)
