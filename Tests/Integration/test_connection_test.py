"""run --connection-test: one login of every user, and nothing else."""

import json
import os
import re
import socket
import subprocess

import pytest

from harness.doctor import CONFIGURATION, OK, UNAVAILABLE, USAGE
from harness.iam import NO_AWS, AccessKey, Cache
from harness.passwords import found_in, new_password
from harness.ports import free_port
from harness.proxy import Upstream, binary

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
LIMIT_SECONDS = 60


class Setup:
    """A configuration of some users, each at an upstream."""

    def __init__(self, place):
        self.place = place
        self.port = free_port()
        self.configuration = {
            "upstreams": {}, "users": {}, "listeners": [
                {"address": f"127.0.0.1:{self.port}", "identities": []}
            ],
        }
        self.environment = {}

    def add(self, name, server, credentials, **more):
        upstream = f"of-{name}"
        tls = Upstream.verified(server) if server.authority else Upstream.plain(server)
        self.configuration["upstreams"][upstream] = tls.settings
        user = {"upstream": upstream, "credentials": credentials} | more
        self.configuration["users"][name] = user
        rules = self.configuration["listeners"][0]["identities"]
        rules.append({"uid": len(rules) + 70000, "user": name})

    def add_password(self, name, server, password):
        file = self.place / f"{name}.password"
        file.write_text(password)
        file.chmod(0o600)
        self.add(name, server, {"password_file": str(file)})

    def run(self, expected=OK, *more):
        file = self.place / "proxy.yaml"
        file.write_text(json.dumps(self.configuration))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
        run = subprocess.run(
            [binary(), "run", "--config", file, "--connection-test", *more],
            capture_output=True, text=True, timeout=LIMIT_SECONDS,
            env=inherited | self.environment,
        )
        assert not found_in(run.stdout + run.stderr)
        assert run.returncode == expected, run.stdout + run.stderr
        return run


@pytest.fixture
def setup(place):
    return Setup(place)


def test_every_user_is_logged_in_and_told(setup, server):
    for user in ("app", "nothing"):
        setup.add_password(user, server, server.passwords[user])
    run = setup.run()
    assert run.stderr == ""
    assert run.stdout == (
        f"user app\n  ok       configuration app @ of-app (localhost:{server.port}, TLS 1.2+,"
        " verified)\n  ok       login       as app\n"
        f"user nothing\n  ok       configuration nothing @ of-nothing (localhost:{server.port},"
        " TLS 1.2+, verified)\n  ok       login       as nothing\n"
        "2 of 2 users could be logged in\n"
    )


def test_nothing_is_listened_on_so_that_it_can_be_asked_beside_a_running_proxy(setup, server):
    setup.add_password("app", server, server.passwords["app"])
    with socket.create_server(("127.0.0.1", setup.port)) as taken:
        taken.setblocking(False)
        setup.run()
        with pytest.raises(BlockingIOError):
            taken.accept()


def test_a_refused_user_is_told_beside_those_that_are_not(setup, server):
    setup.add_password("app", server, server.passwords["app"])
    setup.add_password("reader", server, new_password())
    run = setup.run(UNAVAILABLE)
    app, reader = run.stdout.split("user reader\n")
    assert "failed" not in app
    assert re.search(r"^  failed   login       the server said: WRONGPASS ", reader, re.MULTILINE)
    assert "→ the password is wrong, or there is no user reader" in reader
    assert run.stdout.endswith("\n1 of 2 users could be logged in\n")


def test_a_step_before_the_login_is_told_too(setup, server, reference):
    setup.add_password("app", server, server.passwords["app"])
    setup.configuration["upstreams"]["of-app"]["address"] = f"127.0.0.1:{free_port()}"
    assert re.search("failed   tcp  .*Connection refused", setup.run(UNAVAILABLE).stdout)
    setup.configuration["upstreams"]["of-app"]["address"] = f"127.0.0.1:{reference.port}"
    assert re.search("failed   tls  ", setup.run(UNAVAILABLE).stdout)
    (setup.place / "app.password").unlink()
    assert re.search("failed   credential .*app.password", setup.run(UNAVAILABLE).stdout)


def test_what_ends_run_ends_it_in_the_same_way(setup, server):
    setup.add("app", server, {"password_env": "NOT_SET"})
    run = setup.run(CONFIGURATION)
    assert "wanted the environment variable NOT_SET" in run.stderr
    setup.environment = {"NOT_SET": server.passwords["app"]}
    assert "1 of 1 user could be logged in" in setup.run().stdout
    broken = setup.place / "ca.pem"
    broken.write_text("no certificate")
    setup.configuration["upstreams"]["of-app"]["tls"] = {"ca_file": str(broken)}
    assert "ca.pem" in setup.run(CONFIGURATION).stderr
    setup.configuration["unknown"] = 1
    assert "wanted a known key" in setup.run(CONFIGURATION).stderr
    assert "--no-such" in setup.run(USAGE, "--no-such").stderr


@pytest.mark.parametrize(
    "cache",
    [
        Cache("cache-01"), Cache("serverless-01", is_serverless=True),
        Cache("cluster-01", service="memorydb"),
    ],
    ids=lambda cache: cache.name,
)
def test_a_token_is_signed_and_taken(setup, start_elasticache, cache):
    front = start_elasticache(cache)
    front.trust(KEY)
    iam = {
        "cache_name": cache.name, "region": cache.region, "service": cache.service,
        "serverless": str(cache.is_serverless).lower(),
    }
    setup.add("app", front, {"iam": iam})
    setup.environment = KEY.environment()
    assert "  ok       login       as app\n" in setup.run().stdout
    iam["region"] = "eu-west-1"
    said = setup.run(UNAVAILABLE).stdout
    assert "WRONGPASS" in said and "region eu-west-1" in said and "elasticache:Connect" in said
    setup.environment = NO_AWS
    assert "failed   credential" in setup.run(UNAVAILABLE).stdout


def test_a_secret_is_fetched_and_taken(setup, server, module_moto):
    secret = {"secret_id": "connection-test/cache", "region": "us-east-1"}
    setup.add("app", server, {"secrets_manager": secret})
    setup.environment = NO_AWS | module_moto.environment
    assert re.search("failed   credential .*connection-test", setup.run(UNAVAILABLE).stdout)
    module_moto.create_secret("connection-test/cache", server.passwords["app"])
    assert "  ok       login       as app\n" in setup.run().stdout
    module_moto.put_current("connection-test/cache", new_password())
    said = setup.run(UNAVAILABLE).stdout
    assert "WRONGPASS" in said and "the credential was AWSCURRENT" in said
