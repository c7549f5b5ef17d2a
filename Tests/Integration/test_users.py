"""`redis-auth-proxy users`: real servers behind TLS, and a stand-in for AWS that enforces its rules
(harness/cache_users.py)."""

import json
import os
import pty
import random
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import botocore.exceptions
import botocore.session
import pytest

from harness import passwords
from harness.cache_users import CacheUsers
from harness.iam import NO_AWS
from harness.passwords import new_password
from harness.proxy import binary
from harness.resp import Client, Error

OK, USAGE, UNAVAILABLE, UNFINISHED, DENIED, CONFIGURATION = 0, 64, 69, 75, 77, 78
SECRET = "test/app"
ACCESS = "on ~app:* %R~shared:* &news:* -@all +@read +set +subscribe +acl|whoami"


class Estate:
    """A configuration with declared users, and the commands on it."""

    def __init__(self, place: Path, server, port: int = None, authority=None):
        self.place, self.server = place, server
        authority = authority or server.authority
        tls = {"ca_file": str(authority.ca_file)} if authority else "off"
        self.upstream = {"address": f"localhost:{port or server.port}", "tls": tls}
        self.users = {}
        self.environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("AWS_", "REDIS_AUTH_PROXY"))
        } | NO_AWS
        self.admin_file = self.write("admin", server.passwords["admin"])

    def write(self, name: str, password: str) -> Path:
        file = self.place / f"{name}.password"
        file.write_text(password)
        file.chmod(0o600)
        return file

    def declare(self, name: str, access=ACCESS, password: str = None, **settings) -> str:
        """The password that it is declared with."""
        password = password or new_password()
        credentials = {"password_file": str(self.write(name, password))}
        declared = {"upstream": "cache", "credentials": credentials}
        if access is not None:
            declared["access_string"] = access
        self.users[name] = declared | settings
        return password

    @property
    def file(self) -> Path:
        file = self.place / "users.yaml"
        first = next(iter(self.users))
        listener = {"address": "127.0.0.1:0", "identities": [{"any": True, "user": first}]}
        # A line for each user, so that a line says whose it is.
        users = ",\n".join(f'"{name}": {json.dumps(user)}' for name, user in self.users.items())
        file.write_text(
            f'{{"upstreams": {json.dumps({"cache": self.upstream})}, "users": {{\n{users}\n}},'
            f' "listeners": {json.dumps([listener])}}}\n'
        )
        return file

    @property
    def admin(self) -> list:
        return ["--admin-user", "admin", "--admin-password-file", str(self.admin_file)]

    def call(self, command: str, *arguments, code: int = OK, **environment):
        """What it did, which shows no password."""
        done = subprocess.run(
            [binary(), "users", command, "--config", self.file, *map(str, arguments)],
            env=self.environment | environment, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert not passwords.found_in(done.stdout + done.stderr), "a password is shown"
        return done

    def apply(self, *arguments, code: int = OK, admin=None):
        return self.call(
            "apply", *(self.admin if admin is None else admin), *arguments, code=code
        )

    def events(self, *arguments, code: int = OK, admin=None) -> list:
        done = self.apply("--json", *arguments, code=code, admin=admin)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def logs_in(self, user: str, password: str) -> bool:
        with Client(self.server.address, tls=self.server.client_context) as client:
            return not isinstance(client.value("AUTH", user, password), Error)

    def changes(self) -> int:
        """ACL SETUSER that the server was sent since it was asked last."""
        with self.server.admin() as admin:
            text = admin.value("INFO", "commandstats").decode()
            assert admin.value("CONFIG", "RESETSTAT") == b"OK"
        return sum(
            int(line.partition("calls=")[2].split(",")[0])
            for line in text.splitlines() if line.startswith("cmdstat_acl|setuser:")
        )

    def get(self, user: str) -> dict:
        answer = self.server.ask("ACL", "GETUSER", user)
        return dict(zip(answer[::2], answer[1::2])) if answer else None


@pytest.fixture
def estate(place, start_server):
    made = Estate(place, start_server())
    made.changes()
    return made


# list and lint


def test_users_are_listed(estate):
    estate.declare("app")
    estate.declare("plain", access=None, user_name="other")
    done = estate.call("list")
    for words in (ACCESS, "none declared", "any client", "none: no listener leads to it", "other"):
        assert words in done.stdout
    app, plain = json.loads(estate.call("list", "--json").stdout)["users"]
    assert (app["name"], app["access_string"], app["authentication"]) == ("app", ACCESS, "password")
    assert app["clients"] == [{"listener": "127.0.0.1:0", "identity": "any client"}]
    assert (plain["user_name"], plain["access_string"], plain["clients"]) == ("other", None, [])
    assert estate.changes() == 0


def test_lint_prints_places_as_check_does(estate):
    estate.declare("app")
    assert "0 errors, 0 warnings in 1 access string" in estate.call("lint", "--strict").stdout
    estate.declare("bold", access="on ~* +@all")
    done = estate.call("lint")
    line = next(line for line in done.stderr.splitlines() if "warning" in line)
    checked = subprocess.run(
        [binary(), "check", "--config", estate.file], capture_output=True, text=True, timeout=30
    )
    assert line in checked.stderr and ":3:" in line
    estate.call("lint", "--strict", code=CONFIGURATION)
    estate.declare("wrong", access="on ~* +gett")
    done = estate.call("lint", "--json", code=CONFIGURATION)
    found = json.loads(done.stdout)
    assert (found["errors"], found["warnings"]) == (1, 1)
    wrong = next(each for each in found["problems"] if each["severity"] == "error")
    assert wrong["user"] == "wrong" and "did you mean +get" in wrong["message"]
    assert f"{wrong['place']}: error: {wrong['message']}" in done.stderr


# apply on a server of one's own


def test_a_user_is_created_and_a_second_run_changes_nothing(estate):
    password = estate.declare("app2")
    done = estate.apply("--yes")
    for words in ("new", "+ keys: %R~shared:*, ~app:*", "+ commands:", "created"):
        assert words in done.stdout
    assert estate.logs_in("app2", password)
    assert estate.changes() == 1
    with Client(estate.server.address, tls=estate.server.client_context) as client:
        client.value("AUTH", "app2", password)
        assert client.value("SET", "app:1", "x") == b"OK"
        assert "NOPERM" in str(client.value("SET", "shared:1", "x"))
    for arguments in (["--yes"], []):
        assert "nothing to change" in estate.apply(*arguments).stdout
    assert estate.changes() == 0


def test_a_user_is_changed_and_the_difference_is_shown(estate):
    password = estate.declare("app2")
    estate.apply("--yes")
    estate.declare("app2", access="on ~app:* ~new:* &news:* -@all +@read +del", password=password)
    plan, done, end = estate.events("--yes")
    assert (plan["event"], plan["new"], plan["authentication"]) == ("plan", False, [])
    more = {each["subject"]: each["names"] for each in plan["more"]}
    less = {each["subject"]: each["names"] for each in plan["less"]}
    assert more == {"commands": ["del"], "keys": ["~new:*"]}
    assert less == {"commands": ["acl|whoami", "set", "subscribe"], "keys": ["%R~shared:*"]}
    assert (done["event"], end["event"]) == ("done", "applied")
    assert [event["event"] for event in estate.events("--yes")] == ["unchanged", "unchanged"]
    # The same in other words.
    estate.declare(
        "app2", access="+@all -@all +del +@read resetkeys &news:* ~new:* ~app:* on",
        password=password,
    )
    assert estate.events()[-1]["event"] == "unchanged"
    assert estate.changes() == 2


def test_without_a_terminal_and_without_yes_nothing_is_changed(estate):
    estate.declare("app2")
    done = estate.apply(code=USAGE)
    assert "--yes" in done.stderr and "+ commands:" in done.stdout
    assert estate.events(code=USAGE)[-1]["event"] == "refused"
    done = estate.apply("--dry-run")
    assert "nothing was changed" in done.stdout and "+ commands:" in done.stdout
    assert estate.get("app2") is None and estate.changes() == 0


@contextmanager
def asked(estate):
    """`apply` on a terminal, once it has asked: its process, what it showed, and how to answer."""
    primary, secondary = pty.openpty()
    child = subprocess.Popen(
        [binary(), "users", "apply", "--config", estate.file, *estate.admin],
        stdin=secondary, stdout=secondary, stderr=secondary, env=estate.environment,
    )
    os.close(secondary)
    try:
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(primary, 4096)
        yield child, shown, lambda answer: os.write(primary, answer.encode() + b"\n")
    finally:
        child.kill()
        child.wait()
        os.close(primary)


@pytest.mark.parametrize("answer, code", [("y", OK), ("n", UNFINISHED), ("", UNFINISHED)])
def test_on_a_terminal_it_is_asked(estate, answer, code):
    estate.declare("app2")
    with asked(estate) as (child, shown, reply):
        reply(answer)
        assert child.wait(30) == code
    assert b"+ commands:" in shown
    assert (estate.get("app2") is not None) == (answer == "y")


def test_what_somebody_else_changes_meanwhile_is_not_changed(estate):
    estate.declare("app2")
    estate.apply("--yes")
    estate.server.ask("ACL", "SETUSER", "app2", "+del")
    with asked(estate) as (child, shown, reply):
        assert b"- commands: del" in shown
        # As a rotation does, with a password that nobody knew of when it was looked.
        estate.server.ask("ACL", "SETUSER", "app2", ">" + new_password())
        estate.changes()
        reply("y")
        assert child.wait(30) == UNFINISHED
    assert estate.changes() == 0 and len(estate.get("app2")[b"passwords"]) == 2


def test_live_connections_stay_and_have_the_new_permissions(estate):
    password = estate.declare("app2")
    estate.apply("--yes")
    client = Client(estate.server.address, tls=estate.server.client_context)
    reader = Client(estate.server.address, tls=estate.server.client_context)
    for each in (client, reader):
        assert each.value("AUTH", "app2", password) == b"OK"
    assert reader.value("SUBSCRIBE", "news:1")[0] == b"subscribe"
    assert client.value("SET", "app:1", "x") == b"OK"
    estate.declare("app2", access=ACCESS.replace(" +set", " +del +ping"), password=password)
    estate.apply("--yes")
    assert client.value("ACL", "WHOAMI") == b"app2"
    assert "NOPERM" in str(client.value("SET", "app:1", "y"))
    assert client.value("DEL", "app:1") == 1
    assert estate.server.ask("PUBLISH", "news:1", "m") == 1
    assert reader.read().raw.endswith(b"$1\r\nm\r\n")
    # Turned off, it is logged in where it is, and nowhere else.
    estate.declare("app2", access=ACCESS.replace("on ", "off "), password=password)
    done = estate.apply("--yes")
    assert "- user: on" in done.stdout
    assert client.value("ACL", "WHOAMI") == b"app2" and not estate.logs_in("app2", password)
    client.close()
    reader.close()


def test_what_was_applied_survives_a_restart(estate):
    password = estate.declare("app2")
    estate.apply("--yes")
    estate.server.restart()
    assert estate.logs_in("app2", password)
    assert "nothing to change" in estate.apply().stdout


def test_a_server_whose_users_are_in_its_configuration_file(place, start_server):
    admin = new_password()
    server = start_server(options={
        "aclfile": '""', "user": f"admin on >{admin} ~* &* +@all",
    }, start=False)
    server.passwords["admin"] = admin
    server.start()
    estate = Estate(place, server)
    password = estate.declare("app2")
    assert estate.apply("--yes").stderr == ""
    server.restart()
    assert estate.logs_in("app2", password)
    assert "nothing to change" in estate.apply().stdout


def test_a_server_that_cannot_write_it_down_draws_a_warning(estate):
    estate.server.add_user("half", "+acl|getuser", "+acl|setuser")
    file = estate.write("half", estate.server.passwords["half"])
    estate.declare("app2")
    done = estate.apply("--yes", admin=["--admin-user", "half", "--admin-password-file", file])
    assert "lost when the server restarts" in done.stderr and "NOPERM" in done.stderr


def test_other_passwords_go_unless_they_are_kept(estate):
    old = estate.server.add_user("app2", *ACCESS.split())
    new = estate.declare("app2")
    done = estate.apply("--yes", "--keep-other-passwords")
    assert "declared password becomes" in done.stdout and "no longer good" not in done.stdout
    assert estate.logs_in("app2", old) and estate.logs_in("app2", new)
    assert "1 other password is no longer good" in estate.apply("--yes").stdout
    assert estate.logs_in("app2", new) and not estate.logs_in("app2", old)


def test_a_user_without_a_password_gets_one(estate):
    estate.server.add_user("app2", *ACCESS.split(), "nopass")
    password = estate.declare("app2")
    assert "- user: nopass" in estate.apply("--yes").stdout
    assert estate.logs_in("app2", password) and not estate.logs_in("app2", "whatever")
    estate.declare("app2", access=ACCESS + " nopass", password=password)
    estate.apply("--yes")
    assert estate.logs_in("app2", "whatever")
    assert "nothing to change" in estate.apply().stdout


def test_the_passwords_of_a_rotation_stay(estate, module_moto):
    moto = module_moto
    estate.environment |= moto.environment
    name = f"test/{estate.server.port}"
    passwords_of = [new_password() for _ in range(4)]
    first, second, third, foreign = passwords_of
    moto.create_secret(name, {"username": "app2", "password": first})
    moto.put_current(name, {"username": "app2", "password": second})
    moto.put_pending(name, {"username": "app2", "password": third})
    estate.declare("app2", credentials={"secrets_manager": {"secret_id": name}})
    estate.apply("--yes")
    # A new user gets what is current; the others are the rotation's to give and to take away.
    assert [estate.logs_in("app2", each) for each in passwords_of] == [False, True, False, False]
    estate.server.ask("ACL", "SETUSER", "app2", *(f">{each}" for each in passwords_of))
    assert "1 other password is" in estate.apply("--yes").stdout
    assert [estate.logs_in("app2", each) for each in passwords_of] == [True, True, True, False]
    assert "nothing to change" in estate.apply().stdout


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"credentials": {"iam": {"cache_name": "c", "region": "us-east-1"}}}, "knows no IAM"),
        ({"user_name": "admin"}, "is the administrator"),
        ({"access_string": "on ~* +hexpire"}, "does not understand"),
        ({"credentials": {"password_file": "/nonexistent"}}, "/nonexistent"),
    ],
)
def test_what_cannot_be_applied_is_refused_before_anything_is_changed(estate, settings, words):
    estate.declare("app1")
    estate.declare("wrong", **settings)
    assert words in estate.apply("--yes", code=CONFIGURATION).stderr
    assert estate.changes() == 0
    # Whoever is named alone is not kept from it.
    estate.apply("--yes", "app1")
    assert estate.changes() == 1


def test_the_administrators_login_goes_over_tls_and_must_be_right(estate, reference, place):
    estate.declare("app2")
    assert "wanted an administrator" in estate.apply(admin=[], code=CONFIGURATION).stderr
    estate.admin_file.write_text("wrong")
    assert "refuses the administrator" in estate.apply(code=DENIED).stderr
    estate.upstream["address"] = "localhost:1"
    estate.apply(code=UNAVAILABLE)
    plain = Estate(place, reference)
    plain.declare("app2")
    assert "verified TLS only" in plain.apply("--yes", code=CONFIGURATION).stderr
    assert plain.get("app2") is None


def test_users_that_are_named_must_be_there_and_declared(estate):
    estate.declare("app2", access=None)
    assert "declares no access_string" in estate.apply("app2", code=CONFIGURATION).stderr
    assert "nothing to change" in estate.apply().stdout
    assert "got nobody" in estate.apply("nobody", code=USAGE).stderr
    estate.declare("one", user_name="same")
    estate.declare("two", user_name="same")
    assert "more than once" in estate.apply(code=CONFIGURATION).stderr


def test_replicas_are_named_as_servers(estate, start_server):
    other = start_server()
    password = estate.declare("app2")
    servers = [f"rediss://localhost:{each.port}" for each in (estate.server, other)]
    flags = ["--server", servers[0], "--server", servers[1]]
    estate.apply("--yes", *flags)
    for server in (estate.server, other):
        with Client(server.address, tls=server.client_context) as client:
            assert client.value("AUTH", "app2", password) == b"OK"
    assert "nothing to change" in estate.apply(*flags).stdout


WORDS = """
~a:* ~* %R~a:* %W~a:* %RW~b %R~b* ~[ab]:? &c:* &* +@all -@all +@read -@read +@write -@dangerous
+get +set -get +config +config|get -config|set +client -client|id +select|0 +@string -@slow
resetkeys resetchannels allkeys allchannels allcommands nocommands reset clearselectors +@pubsub
+subscribe +publish (~s:*_+get) (+@all_-@write_~t*) (%R~a:*_+@read_&x) sanitize-payload
skip-sanitize-payload
""".split()


def random_access(dice: random.Random, server, count: int) -> list:
    """Access strings that the server takes."""
    found = []
    with server.admin() as admin:
        for _ in range(count * 50):
            words = dice.choices(WORDS, k=dice.randint(1, 8))
            text = " ".join(["on", *(word.replace("_", " ") for word in words)])
            rules = [word.replace("_", " ") for word in words]
            if admin.value("ACL", "SETUSER", "tried", "reset", *rules) == b"OK":
                found.append(text)
            if len(found) == count:
                break
        admin.value("ACL", "DELUSER", "tried")
    assert len(found) == count
    return found


@pytest.fixture(params=["redis", "valkey"])
def any_estate(request, place, start_server, start_relay_of, authority):
    """On a redis-server, and on Valkey, which is reached with TLS through a relay."""
    if request.param == "redis":
        return Estate(place, start_server())
    server = request.getfixturevalue("valkey")
    relay = start_relay_of(server)
    return Estate(place, server, relay.port, authority)


@pytest.fixture
def start_relay_of(authority):
    from harness.relay import Relay

    started = []

    def start(server):
        started.append(Relay(server, authority.issue("relay")))
        return started[-1]

    yield start
    for relay in started:
        relay.close()


def test_whatever_is_declared_is_as_declared_once_it_is_applied(any_estate, full_size):
    estate = any_estate
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(2):
        strings = random_access(dice, estate.server, 300 if full_size else 60)
        for number, access in enumerate(strings):
            estate.declare(f"r{number}", access=access)
        estate.changes()
        events = estate.events("--yes")
        assert events[-1]["event"] in ("applied", "unchanged"), events[-1]
        again = estate.events()
        assert again[-1]["event"] == "unchanged", (seed, [e for e in again if e["event"] == "plan"])
        assert estate.changes() == sum(event["event"] == "done" for event in events)
        # The server itself makes the same of the words alone.
        with estate.server.admin() as admin:
            for number, access in enumerate(strings):
                rules = rules_of(access)
                assert admin.value("ACL", "SETUSER", "words", "reset", *rules) == b"OK"
                there, here = (
                    [(k, v) for k, v in zip(a[::2], a[1::2]) if k not in (b"passwords", b"flags")]
                    for a in (
                        admin.value("ACL", "GETUSER", "words"),
                        admin.value("ACL", "GETUSER", f"r{number}"),
                    )
                )
                assert sorted(map(str, there)) == sorted(map(str, here)), (seed, access)
            admin.value("ACL", "DELUSER", "words")
    with estate.server.admin() as admin:
        admin.value("ACL", "DELUSER", *(f"r{number}" for number in range(len(strings))))


def rules_of(access: str) -> list:
    """Words, a selector as one."""
    rules = []
    for word in access.split():
        if rules and rules[-1].startswith("(") and not rules[-1].endswith(")"):
            rules[-1] += " " + word
        else:
            rules.append(word)
    return rules


# apply at AWS


@pytest.fixture
def cloud(start_server):
    """An estate whose upstream is a cache of AWS's."""
    with tempfile.TemporaryDirectory(prefix="rap-users-") as directory:
        place = Path(directory)
        server = start_server(options={"unixsocket": place / "server.sock"})
        (server.directory / "server.sock").symlink_to(place / "server.sock")
        made = Estate(place, server)
        made.aws = CacheUsers(place / "aws", server)
        made.environment |= made.aws.environment
        yield made
        made.aws.stop()


def test_the_stand_in_takes_what_botocore_sends(cloud):
    """And so what this program sends is what AWS's own tools send."""
    client = botocore.session.get_session().create_client(
        "elasticache", region_name="us-east-1", endpoint_url=cloud.aws.url,
        aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret",
    )
    mode = {"Type": "password", "Passwords": [new_password(), new_password()]}
    made = client.create_user(
        UserId="made", UserName="made", Engine="valkey", AccessString=CLOUD_ACCESS,
        AuthenticationMode=mode,
    )
    assert made["Authentication"] == {"Type": "password", "PasswordCount": 2}
    assert made["AccessString"] == CLOUD_ACCESS and made["UserGroupIds"] == []
    client.modify_user(UserId="made", AuthenticationMode={"Type": "iam"})
    [described] = client.describe_users(UserId="made")["Users"]
    assert described["Authentication"]["Type"] == "iam"
    with pytest.raises(botocore.exceptions.ClientError, match="UserAlreadyExists"):
        client.create_user(
            UserId="made", UserName="made", Engine="redis", AccessString=CLOUD_ACCESS,
            AuthenticationMode=mode,
        )


SERVICES = [("elasticache", "ModifyUser"), ("memorydb", "UpdateUser")]
CLOUD_ACCESS = "on ~app:* -@all +@read +@connection"


@pytest.mark.parametrize("service, change", SERVICES)
def test_a_user_is_made_at_aws(cloud, service, change):
    password = cloud.declare("fresh", access=CLOUD_ACCESS)
    cloud.aws.set(modifying_seconds=0.5)
    flags = ["--service", service]
    cloud.aws.forget()
    assert "new" in cloud.apply("--dry-run", *flags, admin=[]).stdout
    assert set(cloud.aws.requests()) == {"DescribeUsers"}
    done = cloud.apply("--yes", *flags, admin=[])
    assert "created" in done.stdout and "waiting: user fresh" in done.stdout
    assert "nobody can log in as it before" in done.stderr
    assert cloud.aws.requests()["CreateUser"] == 1
    assert cloud.aws.user(service, "fresh")["Authentication"] == {
        "Type": "password", "PasswordCount": 1,
    }
    assert cloud.logs_in("fresh", password)
    cloud.aws.forget()
    done = cloud.apply("--yes", *flags, admin=[])
    # In no group yet, so that no login could tell.
    assert "nothing to change" in done.stdout and "cannot be found out" in done.stderr
    assert set(cloud.aws.requests()) == {"DescribeUsers"}


@pytest.mark.parametrize("service, change", SERVICES)
def test_a_user_at_aws_is_changed_once(cloud, service, change):
    password = cloud.declare("app2", access=CLOUD_ACCESS)
    cloud.aws.add_user(service, "app2", password, access="on ~* -@all +@connection +get")
    flags = ["--service", service]
    cloud.aws.set(modifying_seconds=0.4)
    cloud.aws.fail(change, "InvalidUserState", times=2)
    plan, *rest = cloud.events("--yes", *flags, admin=[])
    assert {each["subject"]: each["names"] for each in plan["less"]} == {"keys": ["~*"]}
    assert plan["authentication"] == []
    assert "waiting" in [event["event"] for event in rest] and rest[-1]["event"] == "applied"
    assert cloud.aws.requests()[change] == 3
    described = cloud.aws.user(service, "app2")
    assert described["AccessString"] == CLOUD_ACCESS and described["Status"] == "active"
    cloud.aws.forget()
    assert "nothing to change" in cloud.apply(*flags, admin=[]).stdout
    assert change not in cloud.aws.requests()


@pytest.mark.parametrize("service, change", SERVICES)
def test_an_access_string_that_aws_writes_its_own_way_is_the_same(cloud, service, change):
    password = cloud.declare("app2", access=CLOUD_ACCESS)
    access = "on resetchannels -@all +@connection +@read +get ~app:*"
    cloud.aws.add_user(service, "app2", password, access=access)
    done = cloud.apply("--service", service, admin=[])
    assert "nothing to change" in done.stdout and change not in cloud.aws.requests()


@pytest.mark.parametrize("service, change", SERVICES)
def test_passwords_at_aws_are_found_out_by_a_login(cloud, service, change):
    old = new_password()
    cloud.aws.add_user(service, "app2", old, access=CLOUD_ACCESS)
    password = cloud.declare("app2", access=CLOUD_ACCESS)
    flags = ["--service", service]
    done = cloud.apply("--yes", "--keep-other-passwords", *flags, admin=[], code=CONFIGURATION)
    assert "replaces all passwords" in done.stderr
    done = cloud.apply("--yes", *flags, admin=[])
    assert "declared password becomes" in done.stdout and "no longer good" in done.stdout
    assert cloud.logs_in("app2", password) and not cloud.logs_in("app2", old)
    assert "nothing to change" in cloud.apply(*flags, admin=[]).stdout
    # One that the service does not take is not sent.
    cloud.declare("app2", access=CLOUD_ACCESS, password="short")
    cloud.aws.forget()
    done = cloud.apply("--yes", *flags, admin=[], code=CONFIGURATION)
    assert "16 to 128" in done.stderr and change not in cloud.aws.requests()


def test_a_rotations_password_at_aws_stays(cloud):
    previous, current, foreign = (new_password() for _ in range(3))
    cloud.aws.create_secret(SECRET, {"username": "app2", "password": previous})
    cloud.aws.put_current(SECRET, {"username": "app2", "password": current})
    cloud.declare(
        "app2", access=CLOUD_ACCESS, credentials={"secrets_manager": {"secret_id": SECRET}}
    )
    cloud.aws.add_user("elasticache", "app2", current, previous, access=CLOUD_ACCESS)
    flags = ["--service", "elasticache"]
    assert "nothing to change" in cloud.apply(*flags, admin=[]).stdout
    cloud.aws.add_user("elasticache", "app2", previous, foreign, access=CLOUD_ACCESS)
    assert "1 other password is" in cloud.apply("--yes", *flags, admin=[]).stdout
    assert [cloud.logs_in("app2", each) for each in (previous, current, foreign)] == [
        True, True, False,
    ]


@pytest.mark.parametrize("service, change", SERVICES)
def test_a_user_of_iam(cloud, service, change):
    iam = {"cache_name": "c", "region": "us-east-1", "service": service}
    cloud.declare("app2", access=CLOUD_ACCESS, credentials={"iam": iam})
    flags = ["--service", service]
    cloud.apply("--yes", *flags, admin=[])
    assert cloud.aws.user(service, "app2")["Authentication"]["Type"] == "iam"
    assert "nothing to change" in cloud.apply(*flags, admin=[]).stdout
    cloud.aws.add_user(service, "app2", new_password(), access=CLOUD_ACCESS)
    done = cloud.apply("--yes", *flags, admin=[])
    assert "logs in with IAM, and no longer with password" in done.stdout
    assert cloud.aws.user(service, "app2")["Authentication"]["Type"] == "iam"


def test_an_id_that_is_not_the_name(cloud):
    cloud.declare("app2", access=CLOUD_ACCESS, user_name="somebody")
    cloud.aws.add_user("elasticache", "other-id", new_password(), access=CLOUD_ACCESS)
    flags = ["--service", "elasticache", "--user-id", "app2=other-id"]
    done = cloud.apply("--yes", *flags, admin=[], code=CONFIGURATION)
    assert "wanted one that logs in as somebody, got other-id" in done.stderr


# explain

KEYS = ["a:1", "a:2", "b", "bb", "s:1", "t1", "x", "c:1", "news", "", "[ab]:1"]
TEMPLATES = """
get K|set K x|set K x get|set K x ex 10 GET|mget K K|mset K x K x|del K K|rename K K|copy K K|exists K
bitfield K get u8 0|bitfield K set u8 0 1|bitfield_ro K get u8 0|bitfield K overflow wrap get u8 0
sort K|sort K store K|sort K by nosort limit 0 1 store K|sort_ro K|zunion 2 K K|zunionstore K 2 K K
zunion 9 K K|zunion x K|eval x 2 K K|eval x 0|eval x 5 K|fcall f 1 K|xread streams K 0
xread count 1 streams K K 0 0|xreadgroup group g c streams K >|xadd K * f v|migrate h 1 K 0 1
migrate h 1 E 0 1 copy keys K K|migrate h 1 E 0 1 auth2 u keys keys K|georadius K 0 0 1 m store K
georadius K 0 0 1 m|blpop K K 1|brpoplpush K K 1|lmpop 1 K left|object encoding K|memory usage K
memory usage|config get x|config set a b|client id|client kill x|select 0|select 1|publish K x
spublish K x|subscribe K K|psubscribe K|ssubscribe K|unsubscribe K|ping|auth x|hello|quit|reset
keys *|flushall|lcs K K|pfmerge K K|zrangestore K K 0 1|smove K K x|strlen K|type K|watch K K
object help|script load x|acl setuser x|acl whoami|cluster info|function load x|getex K|getdel K
xgroup create K g $|xinfo stream K|pfcount K K|bitop and K K K|sinterstore K K K|zdiffstore K 1 K
""".replace("\n", "|").strip("|").split("|")


def random_command(dice: random.Random) -> list:
    return [
        dice.choice(KEYS) if word == "K" else "" if word == "E" else word
        for word in dice.choice(TEMPLATES).split()
    ]


@pytest.mark.heavy
def test_explain_agrees_with_the_server(any_estate, full_size):
    """Hundreds of random users and commands: ACL DRYRUN, and what is said with and without it."""
    estate = any_estate
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    print(f"seed {seed}")
    strings = random_access(dice, estate.server, 30)
    for number, access in enumerate(strings):
        estate.declare(f"r{number}", access=access)
    estate.events("--yes")
    cases = [
        (f"r{dice.randrange(len(strings))}", random_command(dice))
        for _ in range(2000 if full_size else 300)
    ]
    with estate.server.admin() as admin:
        said = [admin.value("ACL", "DRYRUN", user, *command) for user, command in cases]
    file = estate.file

    def explain(case, flags):
        user, command = case
        done = subprocess.run(
            [binary(), "users", "explain", "--config", file, "--json", *flags, user, *command],
            capture_output=True, text=True, timeout=60, env=estate.environment,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    disagreements, allowed, denied = [], 0, 0
    with ThreadPoolExecutor(3) as pool:
        for flags in (["--offline"], estate.admin):
            answers = pool.map(lambda case: explain(case, flags), cases)
            for (user, command), truth, (code, out, err) in zip(cases, said, answers):
                access = strings[int(user[1:])]
                if isinstance(truth, Error):
                    expected = USAGE
                else:
                    expected = OK if truth == b"OK" else DENIED
                    allowed, denied = allowed + (expected == OK), denied + (expected == DENIED)
                if code != expected:
                    disagreements.append((flags[0], access, command, truth, code, out, err))
                    continue
                if code == USAGE:
                    continue
                answer = json.loads(out)
                source = "access_string of" if flags == ["--offline"] else "ACL DRYRUN of"
                assert answer["source"].startswith(source)
                warnings = [each for each in answer["warnings"] if "is off" not in each]
                assert warnings == [], (seed, access, command, answer)
                assert answer["reason"] and "(by access_string)" not in answer["reason"]
    assert not disagreements, (seed, len(disagreements), disagreements[:5])
    assert allowed > 50 and denied > 50, (seed, allowed, denied)


def test_explain_names_rules_and_sources(estate):
    estate.declare("app2")
    estate.apply("--yes")

    def explain(*arguments, code=OK):
        return json.loads(estate.call("explain", "--json", *arguments, code=code).stdout)

    offline = explain("--offline", "app2", "GET", "shared:1")
    assert offline["reason"] == (
        f"by +@read at character {ACCESS.index('+@read') + 1};"
        f" key shared:1 (read) by %R~shared:* at character {ACCESS.index('%R') + 1}"
    )
    assert offline["keys_source"] == "the built-in table"
    online = explain(*estate.admin, "app2", "SET", "shared:1", "x", code=DENIED)
    assert online["source"] == f"ACL DRYRUN of localhost:{estate.server.port}, as admin"
    assert online["keys_source"].startswith("COMMAND GETKEYSANDFLAGS of")
    assert "%R~shared:* does not allow that" in online["reason"]
    # Without an administrator the user asks itself, if it may.
    itself = explain("app2", "GET", "app:1")
    assert itself["source"].startswith("access_string") and "may not ask" in itself["warnings"][0]
    password = (estate.place / "app2.password").read_text()
    estate.declare("app2", access=ACCESS + " +acl|dryrun", password=password)
    estate.apply("--yes")
    itself = explain("app2", "GET", "app:1")
    assert itself["source"].endswith("as app2") and itself["warnings"] == []
    # What is declared and not applied yet is told apart.
    estate.declare("app2", access=ACCESS.replace("+set", "+del"), password=password)
    differing = explain(*estate.admin, "app2", "DEL", "app:1", code=DENIED)
    assert "access_string says otherwise: allowed" in differing["warnings"][0]
    text = estate.call("explain", "--offline", "app2", "DEL", "x:1", code=DENIED).stdout
    assert text.startswith("denied: key x:1 (write) matches none of ~app:*")


def test_explain_says_what_it_cannot_tell(estate):
    estate.declare("app2")
    estate.declare("plain", access=None)
    for arguments, code in [
        (["--offline", "nobody", "GET", "x"], USAGE),
        (["--offline", "app2", "NOSUCH"], USAGE),
        (["--offline", "app2", "CONFIG", "NOSUCH"], USAGE),
        (["--offline", "app2", "GET"], USAGE),
        (["--offline", "app2"], USAGE),
        (["--offline", "plain", "GET", "x"], CONFIGURATION),
        ([*estate.admin, "app2", "GET", "x"], UNAVAILABLE),
        ([*estate.admin, "--offline", "app2", "GET", "x"], USAGE),
    ]:
        estate.call("explain", *arguments, code=code)
    # The login of a user that is not there is refused, and the access string is what is left.
    done = estate.call("explain", "app2", "GET", "app:1")
    assert "could not be asked" in done.stderr
