"""The admin listener: metrics, probes, the status document and its page."""

import re
import stat
import struct

import pytest
import yaml

from harness.admin import Admin, chromium, promtool
from harness.proxy import REPOSITORY, Listener, Upstream
from harness.resp import Error, eventually
from harness.server import PASSWORDS

ALERTS = REPOSITORY / "config/prometheus-alerts.yaml"
PROBES = ("/startup", "/ready", "/live")


@pytest.fixture
def start_watched(start_proxy):
    """Starts proxies of one user that can be watched."""

    def start(server, admin, listener=None, password=PASSWORDS["app"]):
        proxy = start_proxy(
            {"cache": Upstream.verified(server)}, {"app": password}, [listener or Listener("app")],
            admin=admin.settings,
        )
        eventually(lambda: "status page, metrics and probes on" in proxy.log(), what="it listens")
        return proxy

    return start


@pytest.fixture
def watched(start_watched, server):
    """A proxy that can be watched, and its listener for app."""
    admin, listener = Admin(), Listener("app")
    start_watched(server, admin, listener)
    eventually(admin.is_ready, what="the proxy is ready")
    return admin, listener


# Probes


def test_the_probes_say_yes_when_all_is_well(watched):
    admin, _ = watched
    for probe in PROBES:
        assert admin.request(probe)[::2] == (200, "ok\n")


def test_a_wrong_password_stands_against_ready_until_it_is_right(start_watched, server):
    admin = Admin()
    proxy = start_watched(server, admin, password="wrong-password-of-app")
    eventually(lambda: "wrong_password" in admin.request("/ready")[2], what="it says why")
    status, _, text = admin.request("/ready")
    assert status == 503 and text.startswith("user app: its last login failed")
    assert admin.request("/startup")[0] == 503
    assert admin.request("/live")[0] == 200
    assert "wrong-password-of-app" not in text + admin.text("/status.json") + admin.text("/metrics")
    proxy.write_password("app", PASSWORDS["app"])
    # Nobody is connected, and it finds out all the same.
    eventually(admin.is_ready, what="the proxy is ready")
    assert admin.request("/startup")[0] == 200


def test_a_server_that_comes_back_is_found_without_a_client(start_watched, start_server):
    server = start_server()
    admin = Admin()
    server.stop()
    start_watched(server, admin)
    eventually(lambda: "unreachable" in admin.request("/ready")[2], what="it says why")
    assert admin.request("/live")[0] == 200
    server.start()
    eventually(admin.is_ready, seconds=30, what="the proxy is ready")


# What may ask


def test_nothing_but_get_is_answered(watched):
    admin, _ = watched
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        status, headers, _ = admin.request("/status.json", method)
        assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]"]
)
def test_a_name_that_could_be_rebound_is_refused(watched, host):
    admin, _ = watched
    for path in ("/", "/status.json", "/metrics", "/ready"):
        assert admin.request(path, host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9", "[::1]:80"])
def test_names_of_this_machine_are_taken(watched, host):
    assert watched[0].request("/live", host=host)[0] == 200


def test_a_unix_socket_is_for_its_user_alone_and_takes_any_host(start_watched, server, open_place):
    admin = Admin(open_place / "admin.sock")
    proxy = start_watched(server, admin)
    assert stat.S_IMODE(admin.path.stat().st_mode) == 0o600
    assert admin.request("/live", host="anything.example")[0] == 200
    assert proxy.stop() == 0
    assert not admin.path.exists()


def test_an_address_in_use_ends_the_start(start_proxy, server, watched):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"app": PASSWORDS["app"]}, [Listener("app")],
        admin=watched[0].settings, wait=False,
    )
    assert proxy.process.wait() == 69
    assert "another process listens there" in proxy.log()


# Metrics


def test_metrics_are_as_promtool_wants_them(watched):
    admin, listener = watched
    with listener.connect() as client:
        client.value("SET", "a", "1")
        promtool("check", "metrics", text=admin.text("/metrics"))


def test_metrics_count_what_clients_do(watched):
    admin, listener = watched
    with listener.connect() as client:
        for _ in range(10):
            client.value("SET", "key", "value")
        with listener.connect() as other:
            other.value("WATCH", "key")
            eventually(lambda: admin.sum("sessions", user="app") == 2, what="both are counted")
            assert admin.sum("pinned_sessions", user="app") == 1
            assert admin.sum("pins_total", reason="watch") == 1
            assert admin.sum("upstream_connections", use="own", state="ready") == 1
        eventually(lambda: admin.sum("sessions", user="app") == 1, what="one has left")
        assert admin.sum("commands_total", user="app") == 11
        assert admin.sum("latency_seconds_count") == 11
        assert admin.sum("received_bytes_total", user="app") > 300
        assert admin.sum("owed_replies", user="app") == 0
    eventually(lambda: admin.sum("sessions", user="app") == 0, what="the clients have left")
    # One was the look whether the proxy listens.
    assert admin.sum("sessions_closed_total", reason="clientClosed") == 3
    assert admin.sum("commands_total", user="app") == 11
    assert admin.sum("logins_total", result="accepted") >= 1


def test_a_hostile_client_makes_no_series(watched):
    admin, listener = watched

    def names():
        return {name for name in admin.samples() if "upstream_connections" not in name}

    with listener.connect() as client:
        client.value("PING")
        eventually(lambda: admin.sum("sessions", user="app") == 1, what="it is counted")
        before = names()
    for number in range(20):
        name = f"hostile-{number}"
        with listener.connect() as client:
            assert isinstance(client.value("AUTH", name, name), Error)
            client.value("CLIENT", "SETNAME", name)
            client.value("HELLO", "3", "SETNAME", name)
            client.value("SELECT", str(number % 16))
            client.value(name.upper(), name)
    eventually(lambda: admin.sum("sessions_opened_total", user="app") > 20, what="all are counted")
    assert names() == before
    assert "hostile" not in admin.text("/metrics")


# Alert rules


def test_the_alert_rules_are_as_promtool_wants_them():
    promtool("check", "rules", ALERTS)


def test_the_alert_rules_name_only_metrics_that_there_are(watched):
    text = watched[0].text("/metrics")
    # Of logins that end, which there are none of here.
    exposed = set(re.findall(r"# TYPE (\S+)", text)) | {
        "redis_auth_proxy_next_renewal_seconds", "redis_auth_proxy_credential_left_seconds",
    }
    named = set(re.findall(r"redis_auth_proxy_\w+", ALERTS.read_text()))
    assert named and named <= exposed, named - exposed


def test_the_alerts_fire_when_they_should(tmp_path):
    app = 'upstream="cache", user="app"'
    refused = f'redis_auth_proxy_logins_total{{{app}, result="failed", reason="wrong_password"}}'
    series = {
        "redis_auth_proxy_ready": "1x3 0x30",
        "redis_auth_proxy_draining": "0x40",
        refused: "0x5 0+2x30",
        f"redis_auth_proxy_credential_left_seconds{{{app}}}": "800x4 700-60x20",
        'redis_auth_proxy_limit_used{limit="max_sessions"}': "10x5 95x40",
        'redis_auth_proxy_limit{limit="max_sessions"}': "100x50",
        'redis_auth_proxy_sessions_refused_total{reason="no_rule"}': "0x50",
    }
    def alert(name, at, fires):
        return {"alertname": f"RedisAuthProxy{name}", "eval_time": at, "exp_alerts": fires}

    group = {
        "interval": "1m",
        "input_series": [{"series": key, "values": value} for key, value in series.items()],
        "alert_rule_test": [
            alert("NotReady", "2m", []),
            alert("LoginsRefused", "3m", []),
            alert("TokenLapses", "3m", []),
            alert("LimitNear", "5m", []),
            alert("ClientsRefused", "20m", []),
        ],
    }
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    texts = {rule["alert"]: rule for rule in rules}

    def expected(name, labels, **words):
        rule = texts[f"RedisAuthProxy{name}"]
        annotations = {}
        for key, text in rule["annotations"].items():
            for word, value in (labels | words | {"instance": ""}).items():
                text = text.replace("{{ $labels." + word + " }}", value)
            annotations[key] = text
        return [{"exp_labels": labels | rule["labels"], "exp_annotations": annotations}]

    by_user = {"upstream": "cache", "user": "app"}
    group["alert_rule_test"] += [
        alert("NotReady", "10m", expected("NotReady", {})),
        alert("LoginsRefused", "15m",
              expected("LoginsRefused", by_user | {"reason": "wrong_password"})),
        alert("LimitNear", "15m", expected("LimitNear", {"limit": "max_sessions"})),
    ]
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [group]}))
    assert "SUCCESS" in promtool("test", "rules", tests)


# The status document and its page


def test_the_status_says_what_the_page_shows(watched):
    admin, listener = watched
    with listener.connect() as client:
        client.value("SET", "a", "1")
        eventually(lambda: admin.status()["commands"] == 1, what="it is counted")
        client.value("GET", "a")
        eventually(lambda: admin.status()["commands"] == 2, what="both are counted")
        status = admin.status()
    assert status["is_ready"] and not status["is_draining"] and status["obstacles"] == []
    (row,) = [row for row in status["sessions"] if row["connected"]]
    assert (row["principal"], row["user"], row["connected"]) == ("any", "app", 1)
    (user,) = status["users"]
    assert (user["name"], user["upstream"], user["last_login"]) == ("app", "cache", "accepted")
    assert user["credential_kind"] == "password" and user["oldest_login_age_seconds"] >= 0
    assert {"shared"} <= {c["use"] for c in user["connections"]}
    assert [l["sessions"] for l in status["listeners"]] == [1]
    assert {entry["percentile"] for entry in status["latency"]} == {50, 90, 99, 99.9}
    assert status["recent"]["commands_per_second"] >= 0


def test_the_last_errors_are_in_the_status_without_a_secret(start_watched, server):
    admin = Admin()
    start_watched(server, admin, password="wrong-password-of-app")
    eventually(lambda: admin.status()["records"], what="there is an error")
    record = admin.status()["records"][-1]
    assert record["level"] == "error" and "refused the login" in record["text"]
    assert "wrong-password-of-app" not in admin.text("/status.json")


def test_the_page_needs_nothing_from_elsewhere(watched):
    status, headers, page = watched[0].request("/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    nonce = re.search(r"script-src 'nonce-(\w+)'", policy)[1]
    assert page.count(f'nonce="{nonce}"') == 2
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!/status.json)""", page) == []
    assert "http://" not in page and "https://" not in page
    assert nonce not in watched[0].request("/")[2], "each answer has its own"


def test_a_browser_shows_the_page_live(watched, tmp_path):
    admin, listener = watched
    with listener.connect() as client, listener.connect() as other:
        client.value("SET", "a", "1")
        other.value("WATCH", "a")
        dom = chromium(
            "--virtual-time-budget=5000", "--dump-dom", admin.url + "/", directory=tmp_path / "one"
        )
        text = re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(script|style).*?</\1>", "", dom))
        for words in ("ready", "per second", "p99", "app", "cache", "accepted", "no end",
                      "1 shared", "1 own", listener.settings["address"], "multiplexed",
                      "none since the start"):
            assert words in text, f"{words} is not in {text}"
        assert re.search(r'id="clients">2<', dom)
        for name, size in (("wide", (1280, 1000)), ("phone", (390, 1800))):
            picture = tmp_path / f"{name}.png"
            chromium(
                "--virtual-time-budget=3000", f"--window-size={size[0]},{size[1]}",
                f"--screenshot={picture}", admin.url + "/", directory=tmp_path / name,
            )
            data = picture.read_bytes()
            assert struct.unpack(">II", data[16:24]) == size
            # One colour alone would take a tenth of that.
            assert len(data) > 30_000


def test_a_browser_takes_nothing_in_the_status_for_markup(start_watched, server, tmp_path):
    admin = Admin()
    rule = {"login": {"name": "<img/src=x>", "password_sha256": "0" * 64}, "user": "app"}
    start_watched(server, admin, Listener("app", identities=[rule]))
    dom = chromium(
        "--virtual-time-budget=3000", "--dump-dom", admin.url + "/", directory=tmp_path / "one"
    )
    assert "login:&lt;img/src=x&gt;" in dom and "<img" not in dom.replace("&lt;img", "")
