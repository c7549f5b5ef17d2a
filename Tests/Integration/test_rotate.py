"""`redis-auth-proxy rotate`: a stand-in for AWS that enforces its rules (harness/cache_users.py), real
redis-servers behind TLS, and clients behind a proxy that must notice nothing."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from harness import passwords, verifier
from harness.cache_users import CacheUsers
from harness.iam import NO_AWS
from harness.moto import CURRENT, PENDING, PREVIOUS
from harness.passwords import new_password
from harness.process import Process
from harness.proxy import Listener, Upstream, binary
from harness.resp import Client, Error, eventually

SECRET = "test/rotated"
ARNS = {
    "elasticache": "arn:aws:elasticache:us-east-1:123456789012:user:app",
    "memorydb": "arn:aws:memorydb:us-east-1:123456789012:user/app",
}
ROTATIONS_QUICK, ROTATIONS_FULL = 12, 200


class Place:
    """A stand-in for AWS, a server that gets the passwords of its user `app`, and a secret."""

    def __init__(self, directory: Path, start_server):
        self.directory = directory
        self.server = start_server(options={"unixsocket": directory / "server.sock"})
        # Where CacheUsers looks for it.
        (self.server.directory / "server.sock").symlink_to(directory / "server.sock")
        self.aws = CacheUsers(directory / "aws", self.server)
        self.old = self.server.passwords["app"]
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("AWS_")
        } | NO_AWS | self.aws.environment

    def add(self, service: str = "elasticache", **more) -> dict:
        """The user and its secret; the secret's value."""
        arn = self.aws.add_user(service, "app", self.old)
        assert arn == ARNS[service]
        value = {"username": "app", "user_arn": arn, "password": self.old} | more
        self.aws.create_secret(SECRET, value)
        return value

    @property
    def tls(self) -> list:
        return ["--ca-file", str(self.server.authority.ca_file)]

    @property
    def flags(self) -> list:
        return ["--secret", SECRET, "--server", f"rediss://localhost:{self.server.port}", *self.tls]

    def rotate(self, *arguments, flags=None, code: int = 0, **environment):
        """The command's result, which has no password in it."""
        done = subprocess.run(
            [binary(), "rotate", *(self.flags if flags is None else flags), *map(str, arguments)],
            env=self.environment | environment, capture_output=True, text=True, timeout=90,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        self.check_hidden(done.stdout + done.stderr)
        return done

    def start(self, *arguments) -> Process:
        return Process(
            [binary(), "rotate", *self.flags, *map(str, arguments)],
            self.directory / "rotate.log", environment=self.environment,
        )

    def password(self, stage: str = CURRENT):
        return json.loads(self.aws.value(SECRET, stage))["password"]

    def check_hidden(self, text: str) -> None:
        """No password of the secret, and no other of this run, is in `text`."""
        for stage in (CURRENT, PENDING):
            try:
                passwords.remember(self.password(stage))
            except (OSError, ValueError, KeyError):
                pass  # There is none: no secret, no such version, or none with a value.
        assert not passwords.found_in(text), "a password is shown"

    def stages(self) -> dict:
        return self.aws.stages(SECRET)

    def logs_in(self, password: str, user: str = "app", server=None) -> bool:
        server = server or self.server
        with Client(server.address, tls=server.client_context) as client:
            return not isinstance(client.value("AUTH", user, password), Error)

    def check_rotated(self, before: str = None) -> str:
        """The new password, which is good beside the one before."""
        before = before or self.old
        new = self.password()
        assert new != before and self.logs_in(new) and self.logs_in(before)
        assert sorted(map(sorted, self.stages().values())) == [[CURRENT, PENDING], [PREVIOUS]]
        assert self.password(PREVIOUS) == before
        return new

    def stop(self) -> None:
        self.aws.stop()


@pytest.fixture
def place(start_server):
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="rap-rotate-") as directory:
        made = Place(Path(directory), start_server)
        yield made
        made.stop()


@pytest.mark.parametrize("service", ["elasticache", "memorydb"])
def test_a_user_at_aws_gets_a_new_password_beside_the_old_one(place, service):
    before = place.add(service, note="ä", nested={"n": [1, 2]})
    place.aws.set(modifying_seconds=0.3)
    done = place.rotate()
    new = place.check_rotated()
    assert json.loads(place.aws.value(SECRET)) == before | {"password": new}
    assert "logged in at localhost" in done.stdout
    assert not any(entry[3] == b"auth" for entry in place.server.ask("ACL", "LOG"))


def test_lines_for_scripts(place):
    place.add()
    place.aws.set(modifying_seconds=0.3)
    events = [json.loads(line) for line in place.rotate("--json").stdout.splitlines()]
    assert events[0] == {
        "event": "begin", "secret": SECRET, "version": events[0]["version"], "resumed": False,
    }
    assert CURRENT in place.stages()[events[0]["version"]]
    steps = [(event["step"], event["event"]) for event in events[1:-1]]
    assert [step for step in steps if step[1] == "done"] == [
        (step, "done") for step in ("createSecret", "setSecret", "testSecret", "finishSecret")
    ]
    assert ("testSecret", "waiting") in steps
    assert events[-1] == {"event": "rotated"}
    failed = place.rotate("--json", "--server", "rediss://localhost:1", code=69)
    assert json.loads(failed.stdout.splitlines()[-1])["event"] == "failed"


def test_a_dry_run_changes_nothing(place):
    place.add()
    stages, value = place.stages(), place.aws.value(SECRET)
    place.aws.forget()
    done = place.rotate("--dry-run", "--drop-previous")
    assert done.stdout.count("planned") == 5
    assert place.stages() == stages and place.aws.value(SECRET) == value
    assert not {"PutSecretValue", "ModifyUser", "UpdateSecretVersionStage"} & set(place.aws.requests())


def test_the_password_before_is_dropped_after_a_while(place):
    place.add()
    place.aws.set(modifying_seconds=0.2)
    place.rotate("--drop-previous", "--grace", "200ms")
    assert place.logs_in(place.password()) and not place.logs_in(place.old)
    # On its own, and again without harm.
    second = place.password()
    place.rotate()
    assert place.logs_in(second)
    for _ in range(2):
        place.rotate("--step", "dropPrevious")
        assert place.logs_in(place.password()) and not place.logs_in(second)


def test_without_a_server_no_login_is_tried(place):
    place.add()
    done = place.rotate(flags=["--secret", SECRET])
    assert "no login was tried" in done.stdout
    place.check_rotated()


def test_host_and_port_of_the_secret_are_a_server(place):
    place.add(host="localhost", port=place.server.port)
    done = place.rotate(flags=["--secret", SECRET, *place.tls])
    assert f"logged in at localhost:{place.server.port}" in done.stdout


def test_a_secret_that_is_the_password_alone(place):
    arn = place.aws.add_user("elasticache", "app", place.old)
    place.aws.create_secret(SECRET, place.old)
    place.rotate("--user-arn", arn, "--user", "app")
    new = place.aws.value(SECRET)
    assert new != place.old and place.logs_in(new) and place.logs_in(place.old)


def test_a_user_that_is_being_changed_is_waited_for(place):
    place.add()
    place.aws.set(modifying_seconds=0.5)
    # Somebody was faster, and AWS has enough of it.
    place.aws.fail("ModifyUser", "InvalidUserState", times=2)
    place.aws.fail("DescribeUsers", "Throttling")
    place.aws.fail("GetSecretValue", "InternalServiceError", status=500)
    place.rotate()
    place.check_rotated()
    assert place.aws.requests()["ModifyUser"] == 3


def test_a_rotation_that_takes_too_long_goes_on_the_next_time(place):
    place.add()
    place.aws.set(modifying_seconds=4.0)
    done = place.rotate("--wait", "500ms", code=75)
    assert "app of ElastiCache is modifying" in done.stderr
    assert place.logs_in(place.password())
    done = place.rotate()
    assert "an earlier rotation began" in done.stdout
    place.check_rotated()


# At each request of a rotation: before it takes effect, and behind that.
REQUESTS = [
    *(("DescribeSecret", skip) for skip in range(5)),
    *(("GetSecretValue", skip) for skip in range(6)),
    ("DescribeUsers", 0), ("DescribeUsers", 3), ("PutSecretValue", 0), ("ModifyUser", 0),
    ("UpdateSecretVersionStage", 0),
]


@pytest.mark.parametrize("operation, skip", REQUESTS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rotation_that_is_killed_is_finished_by_the_next(place, operation, skip, moment):
    place.add()
    place.aws.set(modifying_seconds=0.2)
    place.aws.hold(operation, moment, skip)
    process = place.start()
    eventually(place.aws.is_held, 30, f"{operation} is asked for")
    process.send_signal(signal.SIGKILL)
    process.wait()
    place.aws.release()
    # Whoever reads the secret now can log in.
    before = place.password()
    assert place.logs_in(before)
    place.rotate()
    # Behind the last request it was finished, and this is another one.
    assert (before == place.old) == ((operation, moment) != ("UpdateSecretVersionStage", "after"))
    place.check_rotated(before)
    assert place.aws.requests()["PutSecretValue"] <= 2


def test_a_pending_password_that_cannot_be_set_makes_room_for_another(place):
    value = place.add()
    place.aws.put_pending(SECRET, value | {"password": "a,password,with,commas"})
    done = place.rotate()
    assert "a new version takes its place" in done.stderr
    assert place.logs_in(place.password()) and place.logs_in(place.old)


# The stand-in itself, asked by AWS's own client.


def client(place, service: str):
    return botocore.session.get_session().create_client(
        service, region_name="us-east-1", endpoint_url=place.aws.url, aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret", config=Config(retries={"max_attempts": 0}),
    )


def modify(place, service: str, *passwords: str):
    if service == "elasticache":
        return client(place, service).modify_user(UserId="app", Passwords=list(passwords))
    return client(place, service).update_user(
        UserName="app", AuthenticationMode={"Type": "password", "Passwords": list(passwords)}
    )["User"]


def user(place, service: str) -> dict:
    name = {"elasticache": "UserId", "memorydb": "UserName"}[service]
    return client(place, service).describe_users(**{name: "app"})["Users"][0]


@pytest.mark.parametrize("service", ["elasticache", "memorydb"])
def test_the_stand_in_keeps_the_rules_of_users(place, service):
    place.add(service)
    assert user(place, service)["Authentication"] == {"Type": "password", "PasswordCount": 1}
    for refused in (
        ["x" * 15], ["x" * 129], *(["x" * 16 + character] for character in ',"/@'),
        ["a" * 16, "b" * 16, "c" * 16], ["a" * 16, "a" * 16],
    ):
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            modify(place, service, *refused)
    place.aws.set(modifying_seconds=None)
    first, second = new_password(), new_password()
    assert modify(place, service, first, second)["Status"] == "modifying"
    assert user(place, service)["Status"] == "modifying"
    with pytest.raises(ClientError, match="has status modifying. Only active users"):
        modify(place, service, first)
    # Until its end the server knows the old one alone.
    assert place.logs_in(place.old) and not place.logs_in(first)
    place.aws.end_changes()
    assert user(place, service)["Status"] == "active"
    assert user(place, service)["Authentication"]["PasswordCount"] == 2
    assert place.logs_in(first) and place.logs_in(second) and not place.logs_in(place.old)
    assert user(place, service)["ARN"] == ARNS[service]


def test_the_stand_in_keeps_the_rules_of_versions(place):
    place.add()
    manager = client(place, "secretsmanager")
    version = {"SecretId": SECRET, "ClientRequestToken": "t" * 32, "VersionStages": [PENDING]}
    for _ in range(2):
        manager.put_secret_value(SecretString="one", **version)
    with pytest.raises(ClientError, match="ResourceExistsException"):
        manager.put_secret_value(SecretString="another", **version)
    manager.put_secret_value(SecretString="x", **version | {"ClientRequestToken": "u" * 32})
    # The label is on one version at a time.
    assert [stages for stages in place.stages().values() if PENDING in stages] == [{PENDING}]


# Servers of one's own.


@pytest.fixture
def own(start_server):
    """A server without AWS in front of its users; the secret is at AWS all the same."""
    with tempfile.TemporaryDirectory(prefix="rap-rotate-") as directory:
        made = Place(Path(directory), start_server)
        made.aws.create_secret(SECRET, {"username": "app", "password": made.old, "x": 1.5})
        made.admin_file = made.directory / "admin"
        made.admin_file.write_text(made.server.passwords["admin"] + "\n")
        made.admin_file.chmod(0o600)
        made.admin = ["--admin-user", "admin", "--admin-password-file", str(made.admin_file)]
        yield made
        made.stop()


def test_a_user_of_a_server_of_ones_own_keeps_its_password_over_a_restart(own):
    with own.server.connect("app") as client:
        done = own.rotate(*own.admin)
        assert client.value("PING") == b"PONG"
    new = own.check_rotated()
    assert "warning" not in done.stdout
    own.server.passwords["app"] = new
    own.server.restart()
    assert own.logs_in(new) and own.logs_in(own.old)
    own.rotate(*own.admin, "--drop-previous", "--grace", "1ms")
    assert not own.logs_in(own.old) and not own.logs_in(new) and own.logs_in(own.password())


def test_a_server_whose_users_are_in_its_configuration_file(own, start_server):
    admin = new_password()
    server = start_server(options={
        "aclfile": '""', "user": f"admin on >{admin} ~* &* +@all",
    }, start=False)
    server.passwords["admin"] = admin
    server.start()
    old = server.add_user("app")
    own.admin_file.write_text(admin)
    own.aws.put_current(SECRET, {"username": "app", "password": old})
    own.rotate(
        *own.admin, flags=["--secret", SECRET, "--server", f"rediss://localhost:{server.port}", *own.tls]
    )
    server.restart()
    assert own.logs_in(own.password(), server=server) and own.logs_in(old, server=server)


def test_what_cannot_be_written_down_is_said(own):
    own.admin_file.write_text(own.server.add_user("rotator", "-@all", "+acl|getuser", "+acl|setuser"))
    done = own.rotate("--admin-user", "rotator", "--admin-password-file", own.admin_file)
    assert "lost when the server restarts" in done.stdout and "NOPERM" in done.stdout
    own.check_rotated()


def test_each_of_several_servers_is_told(own, start_server):
    replica = start_server()
    done = own.rotate("--server", f"rediss://localhost:{replica.port}", *own.admin)
    new = own.check_rotated()
    for password in (new, own.old):
        assert own.logs_in(password, server=replica)
    assert f"localhost:{replica.port}" in done.stdout


def test_the_administrator_may_be_a_secret(own):
    admin = own.aws.create_secret(
        "test/admin", {"username": "admin", "password": own.server.passwords["admin"]}
    )
    own.rotate("--admin-secret", "test/admin")
    own.aws.put_current(
        SECRET, {"username": "app", "password": own.password(), "masterarn": admin}
    )
    own.rotate()
    assert own.logs_in(own.password())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", ["PutSecretValue", "UpdateSecretVersionStage"])
def test_a_rotation_of_ones_own_server_that_is_killed_goes_on(own, operation, moment):
    own.aws.hold(operation, moment)
    process = own.start(*own.admin)
    eventually(own.aws.is_held, 30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    own.aws.release()
    before = own.password()
    assert own.logs_in(before)
    own.rotate(*own.admin)
    own.check_rotated(before)


# What can be wrong.


@pytest.mark.parametrize("change, code, words", [
    (lambda place: place.aws.fail("DescribeSecret", "AccessDeniedException"), 77, "AccessDenied"),
    (lambda place: place.aws.fail("ModifyUser", "InvalidParameterValue"), 78, "InvalidParameter"),
    (lambda place: place.aws.add_user("elasticache", "app", kind="iam"), 78, "it needs no rotation"),
    (lambda place: place.server.stop(), 69, "nothing listens on that port"),
    (lambda place: place.aws.put_current(SECRET, {"username": "other", "user_arn":
     ARNS["elasticache"], "password": place.old}), 78, "the user is other by the secret"),
    (lambda place: place.aws.put_current(SECRET, {"username": "app", "user_arn": "arn:x",
     "password": place.old}), 78, "user_arn: wanted"),
    (lambda place: place.aws.put_current(SECRET, {"username": "app", "user_arn":
     ARNS["elasticache"] + "2", "password": place.old}), 69, "UserNotFound"),
    (lambda place: place.aws.put_current(SECRET, "{"), 78, "a broken one"),
])
def test_what_is_wrong_is_said_and_nothing_is_lost(place, change, code, words):
    place.add()
    change(place)
    done = place.rotate(code=code)
    assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    if place.server.process:
        assert place.logs_in(place.old)


def test_an_administrator_whose_password_is_wrong_is_refused(own):
    own.admin_file.write_text(new_password())
    done = own.rotate(*own.admin, code=77)
    assert "refuses the administrator admin" in done.stderr


@pytest.mark.parametrize("flags, code, words", [
    (["--secret", "no/such"], 69, "ResourceNotFoundException"),
    (["--secret", SECRET, "--server", "redis://localhost"], 78, "over verified TLS only"),
    (["--secret", SECRET, "--server", "localhost"], 78, "begin with rediss://"),
    (["--secret", SECRET, "--password-length", "8"], 78, "wanted 16 to 128"),
    (["--secret", SECRET, "--region", "a b"], 78, "wanted a region"),
    ([], 64, "--secret"),
    (["--secret", SECRET, "--admin-user", "a"], 64, "go together"),
    (["--secret", SECRET, "--version", "short"], 64, "32 to 64"),
    (["--secret", SECRET, "--step", "nonsense"], 64, "createSecret"),
])
def test_flags_that_cannot_be(place, flags, code, words):
    place.add()
    assert words in place.rotate(flags=flags, code=code).stderr


# Under load.


@pytest.mark.heavy
def test_clients_notice_nothing_of_many_rotations_in_a_row(place, start_proxy, full_size):
    """Clients that reconnect all the time, through connections of their own too, so that a login with
    what the proxy has at that moment is always under way; each reply is known beforehand."""
    place.add()
    place.aws.set(modifying_seconds=0.1)
    listeners = [Listener("app", "multiplexed"), Listener("app", "dedicated")]
    source = {"secret_id": SECRET, "region": "us-east-1", "refresh_every": "1s"}
    proxy = start_proxy(
        {"cache": Upstream.verified(place.server)},
        {"app": {"credentials": {"secrets_manager": source}}}, listeners,
        environment=NO_AWS | place.aws.environment,
    )
    assert place.server.ask("ACL", "LOG", "RESET") == b"OK"
    plan = verifier.Plan(
        addresses=tuple(listener.address for listener in listeners), clients=8,
        commands=10_000_000, max_depth=20, reconnect_every=40, pace_seconds=0.01,
    )
    load = verifier.Load(plan)
    seen = {place.old}
    for count in range(1, (ROTATIONS_FULL if full_size else ROTATIONS_QUICK) + 1):
        place.rotate()
        seen.add(place.password())
        # Rotations are months apart, and a reader is never two behind.
        eventually(lambda: proxy.log().count("credential changed") >= count, 20)
        assert load.is_running
    load.stop()
    outcome = load.outcome()
    assert len(seen) == count + 1
    assert not outcome.wrong, outcome.wrong[:5]
    assert (outcome.closed, outcome.refused) == (0, 0)
    assert outcome.answered > 1000 and outcome.reconnected > 50
    assert not [entry for entry in place.server.ask("ACL", "LOG") if b"auth" in entry]
    assert "refused" not in proxy.log()
    print(
        f"{count} rotations, {outcome.answered} commands, {outcome.reconnected} reconnections,"
        f" longest pause {outcome.longest_pause_seconds:.3f} s"
    )


