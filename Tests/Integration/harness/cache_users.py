"""A stand-in for what AWS has for rotations and users: moto, with users of ElastiCache and MemoryDB that
can be made and changed, and a real redis-server that gets their passwords and access strings.

    rotate ── HTTP ──► faults and breakpoints ──► moto ── CreateUser, ModifyUser, ──► ACL SETUSER on a
    users              (this file)                        UpdateUser; `modifying`     redis-server
                                                          for a while

moto has no ModifyUser and no users of MemoryDB at all. What is added enforces what the documentation
and the models say of them: one or two passwords of 16 to 128 printable characters without `, " / @`,
which replace all that the user has; `modifying` for `modifying_seconds` after a change, at whose end
the server knows the passwords; `InvalidUserState` for a change meanwhile. A version of a secret that
has a value refuses another one, which moto overwrites. It is not AWS: it checks no signature, knows no
user groups but that a user is in one or not, and its texts are AWS's only as far as they are published.

A test can have a request fail, or held: before it takes effect, after which it never does, or behind
that, before its answer. Whoever sent it can be killed meanwhile.
"""

import io
import json
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

from .moto import REGION, Moto

ACCOUNT = "123456789012"
HELD_SECONDS = 60.0
LEAST, MOST, REFUSED = 16, 128, ',"/@'


class CacheUsers(Moto):
    """The test's side. `server` is the redis-server that gets the passwords; it must have a Unix
    socket, `server.directory / "server.sock"`, as with the option `unixsocket`."""

    def __init__(self, directory: Path, server):
        self.server = server
        directory.mkdir(parents=True, exist_ok=True)
        self.configuration = directory / "cache_users.json"
        self.configuration.write_text(json.dumps({
            "server": str(server.directory / "server.sock"),
            "admin": server.passwords["admin"],
        }))
        self.configuration.chmod(0o600)
        super().__init__(directory)

    def command(self) -> list:
        return [sys.executable, "-m", "harness.cache_users", self.port, self.configuration]

    def add_user(
        self, service: str, user: str, *passwords: str, kind: str = "password", access: str = None,
        groups: tuple = ("group",),
    ) -> str:
        """A user that is there, with these passwords on the server too; its ARN."""
        return self.tell(
            "add", service=service, user=user, passwords=passwords, kind=kind, access=access,
            groups=groups,
        )

    def user(self, service: str, user: str) -> dict:
        """As DescribeUsers describes it; None if there is none."""
        return self.tell("user", service=service, user=user)

    def set(self, **settings) -> None:
        """Of Backend."""
        self.tell("set", **settings)

    def fail(self, operation: str, code: str, times: int = 1, status: int = 400) -> None:
        """The next requests for `operation` are refused so."""
        self.tell("fail", operation=operation, code=code, times=times, status=status)

    def hold(self, operation: str, place: str, skip: int = 0) -> None:
        """After `skip` more, a request for `operation` is held: `before` or `after` its effect."""
        self.tell("hold", operation=operation, place=place, skip=skip)

    def is_held(self) -> bool:
        return self.tell("held")

    def release(self) -> None:
        """What was held is lost, and nothing is held any more."""
        self.tell("release")

    def requests(self) -> Counter:
        """By operation, since the last `forget`."""
        return Counter(self.tell("requests"))

    def end_changes(self) -> None:
        """Of users that are `modifying` until a test says so: with `modifying_seconds` None."""
        self.tell("end changes")

    def forget(self) -> None:
        self.tell("forget")

    def begin_rotation(self, secret: str, token: str, is_test: bool = False) -> None:
        """As RotateSecret does before it invokes the function: the secret is managed, and has a
        version with AWSPENDING and no value; `is_test` as with RotateImmediately=false."""
        self.tell("begin", secret=secret, token=token, is_test=is_test)

    def tell(self, what: str, **arguments):
        request = urllib.request.Request(
            self.url + "/cache-users", json.dumps({"do": what} | arguments).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


# The process of the stand-in from here on.


class User:
    """One that can be changed. moto's serializer reads its attributes by the names in the models."""

    def __init__(self, service: str, user: str, passwords: list, kind: str, access: str, groups):
        self.service, self.user, self.passwords, self.kind = service, user, passwords, kind
        # None: whatever the server has.
        self.access, self.groups = access, list(groups)
        self.ready_at = 0.0

    @property
    def status(self) -> str:
        return "active" if time.monotonic() >= self.ready_at else "modifying"

    @property
    def arn(self) -> str:
        separator = ":" if self.service == "elasticache" else "/"
        return f"arn:aws:{self.service}:{REGION}:{ACCOUNT}:user{separator}{self.user}"

    def described(self) -> dict:
        authentication = {"Type": self.kind, "PasswordCount": len(self.passwords)}
        common = {
            "Status": self.status, "AccessString": self.access or "on ~* +@all",
            "MinimumEngineVersion": "6.0",
            "Authentication": authentication, "ARN": self.arn,
        }
        if self.service == "memorydb":
            return common | {"Name": self.user, "ACLNames": self.groups}
        return common | {
            "UserId": self.user, "UserName": self.user, "Engine": "redis", "UserGroupIds": self.groups,
        }


class Backend:
    """Users, faults and breakpoints."""

    def __init__(self, server: str, admin: str):
        self.server, self.admin = server, admin
        self.users = {}
        self.modifying_seconds = 0.0
        self.lock = threading.Lock()
        self.counts = Counter()
        self.faults = []
        self.held = None
        # Of the newest version of a secret.
        self.rotation_token = None

    def user(self, service: str, name: str):
        return self.users.get((service, name))

    def apply(self, user: User) -> None:
        """The server knows the passwords and the access string."""
        from .resp import Client

        with Client(self.server) as client:
            assert client.value("AUTH", "admin", self.admin) == b"OK"
            rules = [">" + password for password in user.passwords]
            access = ["reset", *user.access.split()] if user.access else ["resetpass"]
            answer = client.value("ACL", "SETUSER", user.user, *access, *rules)
            assert answer == b"OK", answer

    def create(self, service: str, name: str, access: str, mode: dict) -> User:
        """What CreateUser does; raises Refusal."""
        with self.lock:
            if self.user(service, name):
                raise Refusal("UserAlreadyExists", 400, f"User {name} already exists.")
            user = User(service, name, [], mode["Type"], access, [])
            self.check(mode)
            self.users[service, name] = user
            return self.begin_change(user, access, mode)

    def change(self, service: str, name: str, access, mode) -> User:
        """What ModifyUser and UpdateUser do; raises Refusal."""
        with self.lock:
            user = self.user(service, name)
            if user is None:
                raise Refusal("UserNotFound", 404, f"User {name} not found.")
            if user.status != "active":
                raise Refusal(
                    "InvalidUserState", 400, f"User {name} has status {user.status}. Only active"
                    " users can be modified."
                )
            if access is None and mode is None:
                raise Refusal("InvalidParameterCombination", 400, "Nothing to be changed.")
            if mode:
                self.check(mode)
            return self.begin_change(user, access, mode)

    def check(self, mode: dict) -> None:
        """Refuses an authentication mode that the service refuses."""
        if mode["Type"] == "iam":
            return
        if mode["Type"] != "password":
            raise Refusal("InvalidParameterValue", 400, "Type")
        passwords = mode["Passwords"]
        if not passwords or len(passwords) > 2:
            raise Refusal("InvalidParameterValue", 400, "One or two passwords are wanted.")
        for password in passwords:
            if not LEAST <= len(password) <= MOST:
                raise Refusal(
                    "InvalidParameterValue", 400,
                    "Passwords length must be between 16-128 characters.",
                )
            if not password.isprintable() or any(c in REFUSED for c in password):
                raise Refusal("InvalidParameterValue", 400, "Invalid characters in password.")
        if len(set(passwords)) != len(passwords):
            raise Refusal("InvalidParameterValue", 400, "Passwords must differ.")

    def begin_change(self, user: User, access, mode) -> User:
        if access is not None:
            user.access = access
        if mode:
            user.kind = mode["Type"]
            user.passwords = list(mode.get("Passwords", []))
        if self.modifying_seconds == 0:
            self.apply(user)
            return user
        user.ready_at = float("inf")
        if self.modifying_seconds is None:
            return user
        threading.Timer(self.modifying_seconds, self.end_change, [user]).start()
        return user

    def end_change(self, user: User) -> None:
        self.apply(user)
        user.ready_at = 0.0

    # Orders

    def obey(self, order: dict):
        what = order.pop("do")
        if what == "add":
            user = User(**order)
            self.users[user.service, user.user] = user
            if user.passwords:
                self.apply(user)
            return user.arn
        if what == "user":
            user = self.user(order["service"], order["user"])
            return user and user.described()
        if what == "set":
            for name, value in order.items():
                assert hasattr(self, name), name
                setattr(self, name, value)
        elif what == "fail":
            self.faults += [order] * order["times"]
        elif what == "hold":
            self.held = order | {"reached": threading.Event(), "released": threading.Event()}
        elif what == "held":
            return self.held is not None and self.held["reached"].is_set()
        elif what == "release":
            if self.held:
                self.held["released"].set()
                self.held = None
        elif what == "end changes":
            for user in self.users.values():
                if user.status == "modifying":
                    self.end_change(user)
        elif what == "requests":
            return self.counts
        elif what == "rotation token":
            return self.rotation_token
        elif what == "forget":
            self.counts = Counter()
        elif what == "begin":
            _begin_rotation(**order)
        else:
            raise ValueError(f"no such order: {what}")
        return None


class Refusal(Exception):
    def __init__(self, code: str, status: int, message: str):
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


class Application:
    """Between the socket and moto."""

    def __init__(self, backend: Backend, moto):
        self.backend, self.moto = backend, moto

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["PATH_INFO"] == "/cache-users":
            answer = json.dumps(self.backend.obey(json.loads(body))).encode()
            return _answer(start_response, 200, answer)
        service, operation = _operation(environ, body)
        self.backend.counts[operation] += 1
        for fault in self.backend.faults:
            if fault["operation"] == operation:
                self.backend.faults.remove(fault)
                return _refuse(
                    start_response, service, Refusal(fault["code"], fault["status"], "as ordered")
                )
        held = self._held(operation)
        if held and held["place"] == "before":
            held["reached"].set()
            held["released"].wait(HELD_SECONDS)
            return _refuse(start_response, service, Refusal("Lost", 503, "it was lost"))
        try:
            answer = self._own(service, operation, body)
        except Refusal as refusal:
            return _refuse(start_response, service, refusal)
        if answer is None:
            result = self.moto(environ, start_response)
        if held:
            held["reached"].set()
            held["released"].wait(HELD_SECONDS)
        return result if answer is None else _answer(start_response, 200, answer)

    def _held(self, operation: str):
        held = self.backend.held
        if not held or held["operation"] != operation or held["reached"].is_set():
            return None
        held["skip"] -= 1
        return held if held["skip"] < 0 else None

    def _own(self, service: str, operation: str, body: bytes):
        """The answer to what moto does not know; None: moto shall answer."""
        if service == "secretsmanager" and operation == "PutSecretValue":
            order = json.loads(body)
            _check_version(order)
            self.backend.rotation_token = order.get("RotationToken")
            return None
        if service == "elasticache" and operation in ("DescribeUsers", "CreateUser", "ModifyUser"):
            form = {
                key: values[0]
                for key, values in parse_qs(body.decode(), keep_blank_values=True).items()
            }
            name, access, mode = form["UserId"], form.get("AccessString"), _mode(form)
            if operation == "CreateUser":
                if form["UserName"] != name or form["Engine"] not in ("redis", "valkey"):
                    raise Refusal("InvalidParameterValue", 400, "UserName or Engine")
                user = self.backend.create(service, name, access, mode)
                return _xml(operation, _element_texts(user.described()))
            if operation == "ModifyUser":
                user = self.backend.change(service, name, access, mode)
                return _xml(operation, _element_texts(user.described()))
            user = self.backend.user(service, name)
            if user is None:
                raise Refusal("UserNotFound", 404, f"User {name} not found.")
            texts = _element_texts(user.described())
            return _xml(operation, f"<Users><member>{texts}</member></Users>")
        if service == "memorydb" and operation in ("DescribeUsers", "CreateUser", "UpdateUser"):
            order = json.loads(body)
            name, access = order["UserName"], order.get("AccessString")
            mode = order.get("AuthenticationMode")
            if operation == "CreateUser":
                user = self.backend.create(service, name, access, mode)
                return json.dumps({"User": user.described()}).encode()
            if operation == "UpdateUser":
                user = self.backend.change(service, name, access, mode)
                return json.dumps({"User": user.described()}).encode()
            user = self.backend.user(service, name)
            if user is None:
                raise Refusal("UserNotFound", 404, f"User {name} not found.")
            return json.dumps({"Users": [user.described()]}).encode()
        return None


def _mode(form: dict):
    """The AuthenticationMode of a form, or the Passwords that stand in its place; None: neither."""
    for prefix, kind in (("AuthenticationMode.", form.get("AuthenticationMode.Type")), ("", "password")):
        start = prefix + "Passwords.member."
        passwords = [form[key] for key in sorted(form) if key.startswith(start)]
        if kind and (prefix or passwords):
            return {"Type": kind} | ({"Passwords": passwords} if passwords else {})
    return None


def _operation(environ, body: bytes) -> tuple:
    """Service and operation, as a request says them."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0]
    service = (scope.split("/") + [""] * 4)[3]
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return service, target.rpartition(".")[2]
    return service, parse_qs(body.decode(errors="replace")).get("Action", [""])[0]


def _answer(start_response, status: int, body: bytes, kind: str = "application/json"):
    start_response(
        f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(body)))]
    )
    return [body]


def _refuse(start_response, service: str, refusal: Refusal):
    if service == "elasticache":
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{refusal.code}</Code>"
            f"<Message>{refusal.message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        )
        return _answer(start_response, refusal.status, body.encode(), "text/xml")
    # The full names of shapes, as JSON services write them.
    full = {
        "UserNotFound": "UserNotFoundFault", "InvalidUserState": "InvalidUserStateFault",
        "InvalidParameterValue": "InvalidParameterValueException",
    }
    code = full.get(refusal.code, refusal.code) if service == "memorydb" else refusal.code
    body = json.dumps({"__type": f"com.amazonaws#{code}", "message": refusal.message})
    return _answer(start_response, 400 if refusal.status == 404 else refusal.status, body.encode())


def _element_texts(described: dict) -> str:
    texts = ""
    for name, value in described.items():
        if isinstance(value, list):
            value = "".join(f"<member>{each}</member>" for each in value)
        elif isinstance(value, dict):
            value = _element_texts(value)
        texts += f"<{name}>{value}</{name}>"
    return texts


def _xml(operation: str, content: str) -> bytes:
    return (
        f'<{operation}Response xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/">'
        f"<{operation}Result>{content}</{operation}Result>"
        f"<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{operation}Response>"
    ).encode()


def _secret(name: str):
    from moto.secretsmanager.models import secretsmanager_backends

    return secretsmanager_backends[ACCOUNT][REGION].secrets[name]


def _check_version(order: dict) -> None:
    """A version's value cannot be replaced by another one."""
    token = order["ClientRequestToken"]
    if not 32 <= len(token) <= 64:
        raise Refusal("InvalidParameterException", 400, "ClientRequestToken")
    version = _secret(order["SecretId"]).versions.get(token, {})
    stored = version.get("secret_string")
    if stored is not None and stored != order["SecretString"]:
        raise Refusal(
            "ResourceExistsException", 400, f"a version {token} exists with another value"
        )


def _begin_rotation(secret: str, token: str, is_test: bool) -> None:
    stored = _secret(secret)
    stored.rotation_requested = stored.rotation_enabled = True
    stored.remove_version_stages_from_old_versions(["AWSPENDING"])
    version = {
        "createdate": int(time.time()), "version_id": token, "version_stages": ["AWSPENDING"],
    }
    if is_test:
        current = next(v for v in stored.versions.values() if "AWSCURRENT" in v["version_stages"])
        version["secret_string"] = current["secret_string"]
    stored.versions[token] = version


def _serve(port: int, configuration: dict) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = Application(
        Backend(configuration["server"], configuration["admin"]),
        DomainDispatcherApplication(create_backend_app),
    )
    run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
