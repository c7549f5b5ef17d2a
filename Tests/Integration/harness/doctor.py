"""doctor, called on a configuration of one user, and its report."""

import json
import os
import re
import subprocess

from .passwords import found_in
from .proxy import binary

OK, USAGE, UNAVAILABLE, CONFIGURATION = 0, 64, 69, 78
STEPS = [
    "configuration", "credential", "dns", "tcp", "tls", "login", "identity", "server", "access",
]


def call(*arguments, environment=None):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
    run = subprocess.run(
        [binary(), "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=40,
        env=inherited | (environment or {}),
    )
    # Whatever was asked: never a password.
    assert not found_in(run.stdout + run.stderr)
    return run


class Patient:
    """A configuration with one user, whose steps doctor tells."""

    def __init__(self, place, server, user="app", password=None):
        self.place = place
        self.password_file = place / "password"
        self.write_password(password or server.passwords[user])
        self.tls = {"ca_file": str(server.authority.ca_file)} if server.authority else "off"
        self.upstream = {"address": f"localhost:{server.port}", "tls": self.tls}
        self.user = {
            "upstream": "cache",
            "user_name": user,
            "credentials": {"password_file": str(self.password_file)},
        }
        self.address = "127.0.0.1:0"
        self.environment = {}

    def write_password(self, password):
        self.password_file.write_text(password)
        self.password_file.chmod(0o600)

    def write(self):
        file = self.place / "doctor.yaml"
        rules = [{"any": True, "user": "patient"}]
        file.write_text(
            json.dumps(
                {
                    "upstreams": {"cache": self.upstream},
                    "users": {"patient": self.user},
                    "listeners": [{"address": self.address, "identities": rules}],
                }
            )
        )
        return file

    def examine(self, expected=OK) -> dict:
        """The steps of the user by name, after a look at both formats and the exit codes."""
        file = self.write()
        run = call("--config", file, "--format", "json", environment=self.environment)
        report = json.loads(run.stdout)
        assert run.stdout.count("\n") == 1
        steps = [s for part in report["sections"] if part["kind"] == "user" for s in part["steps"]]
        assert [step["step"] for step in steps] == STEPS[: len(steps)]
        outcomes = [s["outcome"] for part in report["sections"] for s in part["steps"]]
        assert report["failed"] == outcomes.count("failed")
        assert report["warnings"] == outcomes.count("warning")
        assert report["ok"] == (report["failed"] == 0) == (run.returncode == OK)
        assert run.returncode == expected, run.stdout + run.stderr
        text = call("--config", file, environment=self.environment)
        assert text.returncode == expected
        for step in steps:
            assert _steady(step["message"]) in _steady(text.stdout)
            assert step.get("advice", "") in text.stdout
        return {step["step"]: step for step in steps}


def assert_ends(steps, at, *words):
    """The step fails with these words, and it is the last."""
    assert list(steps)[-1] == at, steps
    assert steps[at]["outcome"] == "failed"
    said = steps[at]["message"] + " " + steps[at].get("advice", "")
    for word in words:
        assert word in said, said


def _steady(text: str) -> str:
    """Without what differs from one call to the next: dates, and access keys of sessions."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z|ASIA\w+", "…", text)
