"""A stand-in for the runtime API of AWS Lambda: events are handed out one at a time, answers kept.

It is not Lambda: it does not freeze the process between events. An invocation whose deadline is over
has its process killed, as Lambda does; what the process says later is refused.
"""

import http.server
import json
import queue
import threading
import time
import uuid
from dataclasses import dataclass, field

from .ports import free_port

PREFIX = "/2018-06-01/runtime"


@dataclass
class Invocation:
    """One event and what came of it."""

    event: object
    seconds: float = 60.0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # Either: the answer, or the error's type and message.
    answer: object = None
    error: dict = None
    error_type: str = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def succeeded(self) -> bool:
        return self.ended.is_set() and self.error is None

    def wait(self, seconds: float = 30.0) -> "Invocation":
        assert self.ended.wait(seconds), f"no answer to {self.event} within {seconds} s"
        return self


class LambdaRuntime:
    """The API on a loopback port; `environment` is what a function needs to find it."""

    def __init__(self):
        self.port = free_port()
        self.environment = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.port}"}
        self.init_error = None
        # In place of the answer to `next`, once.
        self.next_status = None
        self._waiting = queue.Queue()
        self._handed_out = {}
        self._stopping = threading.Event()
        runtime = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                runtime._next(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                runtime._take(self, body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def invoke(self, event, seconds: float = 60.0) -> Invocation:
        """Queues an event; the function has `seconds` from when it takes it."""
        invocation = Invocation(event, seconds)
        self._waiting.put(invocation)
        return invocation

    def _next(self, handler) -> None:
        assert handler.path == PREFIX + "/invocation/next", handler.path
        if self.next_status:
            status, self.next_status = self.next_status, None
            return _send(handler, status, b"{}")
        while not self._stopping.is_set():
            try:
                invocation = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            self._handed_out[invocation.id] = invocation
            event = invocation.event
            body = event if isinstance(event, bytes) else json.dumps(event).encode()
            return _send(handler, 200, body, {
                "Lambda-Runtime-Aws-Request-Id": invocation.id,
                "Lambda-Runtime-Deadline-Ms": str(int((time.time() + invocation.seconds) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:1:function:rotate",
                "Lambda-Runtime-Trace-Id": "Root=1-0",
            })
        handler.close_connection = True

    def _take(self, handler, body: bytes) -> None:
        path = handler.path.removeprefix(PREFIX)
        if path == "/init/error":
            self.init_error = json.loads(body)
            return _send(handler, 202, b"{}")
        _, kind, identifier, what = path.split("/")
        invocation = self._handed_out.get(identifier)
        if kind != "invocation" or invocation is None or invocation.ended.is_set():
            return _send(handler, 400, b"{}")
        if what == "response":
            invocation.answer = json.loads(body)
        else:
            assert what == "error", what
            invocation.error = json.loads(body)
            invocation.error_type = handler.headers["Lambda-Runtime-Function-Error-Type"]
        _send(handler, 202, b"{}")
        invocation.ended.set()


def _send(handler, status: int, body: bytes, headers=None) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
