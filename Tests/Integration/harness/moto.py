"""moto_server: Secrets Manager, STS and instance metadata over real HTTP on a loopback port.

It keeps everything in memory, so a killed one forgets; `start` puts back the secrets that were made
through this class, with the version ids and stages that they had. It verifies no signature, and some
of its answers are wrong (a secret without VersionStage is the *previous* version after a rotation):
callers always say which stage they want, which the real service does not mind.
"""

import json
import os
import signal
import sys
import urllib.request
import uuid
from pathlib import Path

from .ports import free_port
from .process import Process, wait_until

REGION = "us-east-1"
CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"
# What AWS accepts and the server does not look at.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION,
}


class Moto:
    """One moto_server; `environment` is what a program needs to use it instead of AWS."""

    def __init__(self, directory: Path, start: bool = True):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = ENVIRONMENT | {"AWS_ENDPOINT_URL": self.url}
        self.process = None
        # By name of the secret: (version id, value, stages), the oldest first.
        self.versions: dict[str, list] = {}
        if start:
            self.start()

    # Life

    def start(self) -> None:
        """On the same port as before, with the secrets of before."""
        self.process = Process(
            self.command(), self.directory / "moto.log",
            environment={k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
            | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        wait_until(self._answers, self.process, f"moto_server on port {self.port}", 60)
        for name, versions in self.versions.items():
            for index, (version, value, stages) in enumerate(versions):
                if index == 0:
                    self._call("CreateSecret", Name=name, ClientRequestToken=version,
                               SecretString=value)
                else:
                    self._call("PutSecretValue", SecretId=name, ClientRequestToken=version,
                               SecretString=value, VersionStages=stages or ["unused"])
            current = self._holder(name, CURRENT)
            if current != versions[-1][0] and CURRENT in versions[-1][2]:
                self._move(name, CURRENT, versions[-1][0], current)

    def command(self) -> list:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port]

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url + "/moto-api/", timeout=5).close()
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """Connections are refused from now on, until `start`."""
        self.process.kill()

    def pause(self) -> None:
        """Connections are accepted and nothing is answered, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.is_running:
            self.resume()
            self.process.kill()

    # Secrets

    def create_secret(self, name: str, value) -> str:
        """Its ARN. A dictionary becomes JSON, as most secrets are."""
        text, version = _text(value), str(uuid.uuid4())
        answer = self._call(
            "CreateSecret", Name=name, ClientRequestToken=version, SecretString=text
        )
        self.versions[name] = [(version, text, [CURRENT])]
        return answer["ARN"]

    def put_pending(self, name: str, value) -> str:
        """The first step of a rotation: a new version, not yet current; its id."""
        text, version = _text(value), str(uuid.uuid4())
        self._call("PutSecretValue", SecretId=name, ClientRequestToken=version, SecretString=text,
                   VersionStages=[PENDING])
        self.versions[name] = [
            (old, kept, [stage for stage in stages if stage != PENDING])
            for old, kept, stages in self.versions[name]
        ] + [(version, text, [PENDING])]
        return version

    def make_current(self, name: str, version: str) -> None:
        """The last step: AWSCURRENT moves to this version and AWSPREVIOUS to the one before."""
        before = self._holder(name, CURRENT)
        if before != version:
            self._move(name, CURRENT, version, before)
        stages = {before: [PREVIOUS], version: [CURRENT]}
        # What has no stage left is not needed again.
        self.versions[name] = [
            (each, text, stages[each]) for each, text, _ in self.versions[name] if each in stages
        ]

    def put_current(self, name: str, value) -> str:
        """A new version at once, as an operator makes it by hand."""
        version = self.put_pending(name, value)
        self.make_current(name, version)
        return version

    def value(self, name: str, stage: str = CURRENT) -> str:
        return self._call("GetSecretValue", SecretId=name, VersionStage=stage)["SecretString"]

    def stages(self, name: str) -> dict:
        """The labels of each version that has any."""
        found = self._call("DescribeSecret", SecretId=name)["VersionIdsToStages"]
        return {version: set(stages) for version, stages in found.items() if stages}

    def _holder(self, name: str, stage: str):
        """The version that has a stage."""
        found = self._call("DescribeSecret", SecretId=name)["VersionIdsToStages"]
        return next((version for version, stages in found.items() if stage in stages), None)

    def _move(self, name: str, stage: str, version: str, before: str) -> None:
        self._call("UpdateSecretVersionStage", SecretId=name, VersionStage=stage,
                   MoveToVersionId=version, RemoveFromVersionId=before)

    def _call(self, operation: str, **parameters) -> dict:
        request = urllib.request.Request(
            self.url, json.dumps(parameters).encode(),
            {
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": f"secretsmanager.{operation}",
                # Where a request belongs is read from its credential's scope.
                "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/"
                f"{REGION}/secretsmanager/aws4_request, SignedHeaders=host, Signature=0",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
