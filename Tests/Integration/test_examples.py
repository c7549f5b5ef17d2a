"""The configurations in config/: each is valid, and each credential source is shown at work."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.iam import NO_AWS, AccessKey, Cache
from harness.proxy import REPOSITORY, Upstream, binary

CONFIGURATIONS = sorted((REPOSITORY / "config").glob("*.yaml"))
EXAMPLES = sorted((REPOSITORY / "config" / "examples").glob("*.yaml"))
# What is not a configuration has a test of its own.
OTHERS = {"kubernetes.yaml", "prometheus-alerts.yaml"}
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
# Files and variables of another machine.
NOT_HERE = re.compile(r"warning: password_(file: .* cannot be read now|env: .* is not set here)")
LIMIT_SECONDS = 60


def call(*arguments, environment=None):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
    return subprocess.run(
        [binary(), *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_SECONDS,
        env=inherited | (environment or {}),
    )



@pytest.mark.parametrize(
    "file",
    [file for file in CONFIGURATIONS + EXAMPLES if file.name not in OTHERS],
    ids=lambda file: file.stem,
)
def test_a_configuration_is_valid_and_warns_of_nothing_but_what_is_elsewhere(file):
    run = call("check", "--config", file)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if not NOT_HERE.search(line)] == []


def test_there_is_an_example_of_each_credential_source():
    """Of those that the manual's table has, and of each service that checks tokens."""
    manual = REPOSITORY / "Sources/RedisAuthProxy/Documentation.docc/Configuration.md"
    keys = re.findall(r"users\.NAME\.credentials\.(\w+)", manual.read_text())
    shown = {source for file in EXAMPLES for source in credentials(file)}
    assert shown == set(keys)
    iam = [credentials(file)["iam"] for file in EXAMPLES if "iam" in credentials(file)]
    assert {settings.get("service", "elasticache") for settings in iam} == {
        "elasticache", "memorydb",
    }
    assert {settings.get("serverless", False) for settings in iam} == {False, True}


def credentials(file: Path) -> dict:
    [user] = yaml.safe_load(file.read_text())["users"].values()
    return user["credentials"]


# At work


class Example:
    """An example whose server is the test's; everything else is as it is written."""

    def __init__(self, file: str, place: Path, server):
        path = REPOSITORY / "config" / "examples" / f"{file}.yaml"
        self.settings = yaml.safe_load(path.read_text())
        [self.upstream] = self.settings["upstreams"].values()
        assert self.upstream["address"].endswith(":6379")
        self.upstream |= Upstream.verified(server).settings
        self.file = place / "proxy.yaml"
        self.credentials = self.settings["users"]["app"]["credentials"]

    def logs_in(self, environment=None) -> None:
        self.file.write_text(yaml.safe_dump(self.settings))
        run = call("run", "--config", self.file, "--connection-test", environment=environment)
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.endswith("1 of 1 user could be logged in\n")


def test_a_password_file_logs_in(place, server):
    example = Example("password-file", place, server)
    assert example.credentials == {"password_file": "/run/secrets/app"}
    example.credentials["password_file"] = str(place / "app")
    (place / "app").write_text(server.passwords["app"])
    example.logs_in()


def test_a_password_in_the_environment_logs_in(place, server):
    example = Example("password-environment", place, server)
    example.logs_in({"REDIS_PASSWORD": server.passwords["app"]})


def test_a_secret_logs_in(place, server, module_moto):
    example = Example("secrets-manager", place, server)
    secret = example.credentials["secrets_manager"]["secret_id"]
    module_moto.create_secret(secret, {"username": "app", "password": server.passwords["app"]})
    example.logs_in(NO_AWS | module_moto.environment)


@pytest.mark.parametrize(
    "file, cache",
    [
        ("iam-elasticache", Cache("my-cache")),
        ("iam-serverless", Cache("my-cache", is_serverless=True)),
        ("iam-memorydb", Cache("my-cluster", service="memorydb")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_token_logs_in(place, start_elasticache, file, cache):
    front = start_elasticache(cache)
    front.trust(KEY)
    Example(file, place, front).logs_in(KEY.environment())
