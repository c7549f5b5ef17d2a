"""Where programs on AWS get their credentials: of containers (ECS, EKS Pod Identity) and machines.

Both hand out keys of their own making, each good for `lifetime_seconds`, and tell `issued` of each,
so that a stand-in for a service can know what it must accept and from when on no more. The next
requests can be made to fail, in the order of `faults`; every request is kept in `requests`.
"""

import http.server
import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field

from .iam import AccessKey
from .ports import free_port

ROLE = "cache-client"
REGION = "eu-west-1"
SLOW_SECONDS = 5.0

# What can go wrong with a request.
NOT_FOUND, BROKEN, THROTTLED, UNAVAILABLE = 404, 500, 429, 503
BAD_JSON, EMPTY, CLOSED, SLOW, REDIRECT, ERROR_IN_BODY = (
    "bad JSON", "empty", "closed", "slow", "redirect", "error in body",
)


@dataclass
class Request:
    method: str
    path: str
    headers: dict
    at: float = field(default_factory=time.monotonic)


class Endpoint:
    """An HTTP server on a loopback address, with faults."""

    def __init__(self, address: str = "127.0.0.1", lifetime_seconds: float = 3600, issued=None):
        self.lifetime_seconds = lifetime_seconds
        self.issued = issued or (lambda key: None)
        self.keys: list[AccessKey] = []
        self.requests: list[Request] = []
        # Consumed one by one; None is a request that succeeds.
        self.faults: list = []
        # Every request fails so once `faults` is used up.
        self.lasting_fault = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        server = _Server6 if ":" in address else http.server.ThreadingHTTPServer
        self.port = free_port()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                endpoint._handle(self)

            do_PUT = do_POST = do_GET

            def log_message(self, *_):
                pass

        self._server = server((address, self.port), Handler)
        self._server.daemon_threads = True
        shown = f"[{address}]" if ":" in address else address
        self.url = f"http://{shown}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def new_key(self) -> AccessKey:
        """A key that is good from now on."""
        key = AccessKey(
            "ASIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30),
            secrets.token_urlsafe(60) + "/+==",
            # What says when it ends is in whole seconds.
            float(int(time.time() + self.lifetime_seconds)),
        )
        self.keys.append(key)
        self.issued(key)
        return key

    def credentials(self) -> dict:
        key = self.new_key()
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(key.expires_at))
        return {
            "AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": key.session_token,
            "Expiration": expiration,
        }

    def answer(self, request: Request):
        """Status and body; overridden."""
        raise NotImplementedError

    def _handle(self, handler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(length)
        request = Request(
            handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}
        )
        with self._lock:
            self.requests.append(request)
            fault = self.faults.pop(0) if self.faults else self.lasting_fault
        if fault == CLOSED:
            handler.close_connection = True
            return
        if fault == SLOW:
            self._stopping.wait(SLOW_SECONDS)
        headers = {}
        if isinstance(fault, int):
            status, body = fault, '{"code": "fault", "message": "as ordered"}'
        elif fault == BAD_JSON:
            status, body = 200, '{"AccessKeyId": "ASIA'
        elif fault == EMPTY:
            status, body = 200, ""
        elif fault == REDIRECT:
            status, body, headers = 302, "", {"Location": self.url + "/elsewhere"}
        elif fault == ERROR_IN_BODY:
            status, body = 200, json.dumps({
                "Code": "AssumeRoleUnauthorizedAccess", "Message": "the role cannot be assumed",
            })
        else:
            with self._lock:
                status, body, *more = self.answer(request)
            headers = more[0] if more else {}
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        try:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:
            handler.close_connection = True


class _Server6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


class ContainerCredentials(Endpoint):
    """ECS's agent and EKS's: a path, and for EKS a token that must be sent as it stands.

    `environment` tells a program where it is; with `authorization_file` its token is read there.
    """

    def __init__(self, *arguments, path="/v1/credentials", authorization: str = None, **options):
        self.path = path
        self.authorization = authorization
        super().__init__(*arguments, **options)

    def environment(self, authorization_file=None) -> dict:
        variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.url + self.path}
        if authorization_file:
            variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(authorization_file)
        elif self.authorization:
            variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = self.authorization
        return variables

    def answer(self, request: Request):
        if request.path != self.path:
            return 404, {"code": "NotFound", "message": "no such path"}
        if self.authorization and request.headers.get("authorization") != self.authorization:
            return 401, {"code": "AccessDenied", "message": "wrong authorization token"}
        return 200, self.credentials() | {"AccountId": "123456789012"}


class InstanceMetadata(Endpoint):
    """A machine's metadata, second version only: without a token there is no answer.

    `is_extended`: the newer path exists too; without it it is a 404, as on most machines.
    """

    def __init__(self, *arguments, is_extended: bool = False, **options):
        self.is_extended = is_extended
        self.role = ROLE
        self.tokens: dict[str, float] = {}
        super().__init__(*arguments, **options)

    def environment(self) -> dict:
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def answer(self, request: Request):
        if request.path == "/latest/api/token":
            seconds = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if request.method != "PUT":
                return 405, ""
            if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return 400, ""
            token = secrets.token_urlsafe(40)
            self.tokens[token] = time.monotonic() + int(seconds)
            return 200, token, {"x-aws-ec2-metadata-token-ttl-seconds": seconds}
        if request.method != "GET":
            return 405, ""
        token = request.headers.get("x-aws-ec2-metadata-token")
        if self.tokens.get(token, 0) < time.monotonic():
            return 401, ""
        for folder, exists in (("", True), ("-extended", self.is_extended)):
            path = f"/latest/meta-data/iam/security-credentials{folder}/"
            if exists and request.path == path:
                return 200, self.role
            if exists and request.path == path + self.role:
                return 200, {"Code": "Success", "Type": "AWS-HMAC",
                             "LastUpdated": "2026-01-01T00:00:00Z"} | self.credentials()
        if request.path == "/latest/meta-data/placement/region":
            return 200, REGION
        return 404, ""

    def forget_tokens(self) -> None:
        """As after a restart of the service: the next request gets 401."""
        self.tokens.clear()
