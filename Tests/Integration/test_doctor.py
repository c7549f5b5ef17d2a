"""doctor: every step between a listener and a server, each failing in its own way."""

import json
import socket
import threading

import pytest

from harness.doctor import CONFIGURATION, OK, STEPS, UNAVAILABLE, Patient, assert_ends, call
from harness.passwords import new_password
from harness.ports import free_port
from harness.server import cluster_options, join_cluster

@pytest.fixture
def patient(place, server):
    return Patient(place, server)


# Nothing is wrong


def test_a_healthy_user_passes_every_step(patient):
    steps = patient.examine()
    assert list(steps) == STEPS
    assert {step["outcome"] for step in steps.values()} == {"ok"}
    assert "127.0.0.1" in steps["dns"]["addresses"]
    assert "TLSv1.3" in steps["tls"]["protection"]
    assert steps["tls"]["certificate_names"] == ["localhost", "127.0.0.1", "::1"]
    assert 20 < steps["tls"]["certificate_days_left"] <= 30
    assert "redis-auth-proxy test CA" in steps["tls"]["certificate_issuer"]
    assert (steps["server"]["server"], steps["server"]["mode"]) == ("redis", "standalone")
    assert steps["server"]["role"] == "master"


@pytest.mark.parametrize("user", ["consumer", "producer", "nothing", "selector"])
def test_a_user_that_may_do_next_to_nothing_can_be_examined(place, server, user):
    patient = Patient(place, server, user)
    patient.user["access_string"] = "on ~* -@all +get"
    steps = patient.examine()
    assert list(steps) == STEPS
    for name in STEPS[:-1]:
        assert steps[name]["outcome"] == "ok", steps[name]
    assert steps["access"]["outcome"] == "unknown"
    assert "NOPERM" in steps["access"]["message"]
    assert f"ACL GETUSER {user}" in steps["access"]["advice"]


def test_flags_in_place_of_a_file_are_examined_too(patient, server):
    run = call(
        "--listen", "127.0.0.1:0", "--upstream", f"rediss://localhost:{server.port}",
        "--ca-file", server.authority.ca_file, "--user", "app",
        "--password-file", patient.password_file,
    )
    assert (run.returncode, run.stderr) == (OK, "")
    assert run.stdout.splitlines()[-1] == "all is well"


def test_a_password_from_the_environment_is_examined(patient, server):
    patient.user["credentials"] = {"password_env": "DOCTOR_TEST"}
    file = patient.write()
    right = {"DOCTOR_TEST": server.passwords["app"]}
    assert call("--config", file, environment=right).returncode == OK
    missing = call("--config", file)
    assert missing.returncode == UNAVAILABLE
    assert "DOCTOR_TEST is not set" in missing.stdout


# The configuration and the credential


def test_a_broken_configuration_is_reported_whole(patient):
    patient.upstream["nonsense"] = 1
    patient.user["access_string"] = "on +gett"
    run = call("--config", patient.write(), "--format", "json")
    assert run.returncode == CONFIGURATION
    report = json.loads(run.stdout)
    assert not report["ok"]
    messages = [step["message"] for step in report["sections"][0]["steps"]]
    assert any("nonsense" in message for message in messages)
    assert any("did you mean +get?" in message for message in messages)


def test_a_credential_that_cannot_be_read_does_not_hide_the_rest(patient):
    patient.password_file.unlink()
    steps = patient.examine(UNAVAILABLE)
    assert list(steps) == STEPS[:5]
    assert steps["credential"]["outcome"] == "failed"
    assert "No such file" in steps["credential"]["message"]
    assert steps["tls"]["outcome"] == "ok"


def test_a_password_file_for_everybody_draws_a_warning(patient):
    patient.password_file.chmod(0o644)
    steps = patient.examine()
    assert steps["credential"]["outcome"] == "warning"
    assert "chmod o-r" in steps["credential"]["advice"]


# The way there


def test_a_host_that_does_not_exist_fails_at_dns(patient):
    patient.upstream["address"] = "no-such-host.invalid:6379"
    assert_ends(patient.examine(UNAVAILABLE), "dns", "no-such-host.invalid", "name server")


def test_a_port_that_nobody_listens_on_fails_at_tcp(patient):
    patient.upstream["address"] = f"127.0.0.1:{free_port()}"
    assert_ends(patient.examine(UNAVAILABLE), "tcp", "Connection refused", "check address and port")


def test_a_server_that_does_not_answer_fails_at_tls(patient):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        patient.upstream["address"] = f"127.0.0.1:{silent.getsockname()[1]}"
        patient.upstream["connect_timeout"] = "200ms"
        assert_ends(patient.examine(UNAVAILABLE), "tls", "connect_timeout")


def test_a_server_without_tls_fails_at_tls(patient, reference):
    patient.upstream["address"] = f"localhost:{reference.port}"
    assert_ends(patient.examine(UNAVAILABLE), "tls", "TLS")


def test_a_server_with_tls_that_is_spoken_to_without_fails_at_login(patient):
    patient.upstream["tls"] = "off"
    steps = patient.examine(UNAVAILABLE)
    assert steps["tls"]["outcome"] == "warning"
    assert_ends(steps, "login")


def test_a_wrong_authority_fails_at_tls(patient, other_authority):
    patient.tls["ca_file"] = str(other_authority.ca_file)
    assert_ends(patient.examine(UNAVAILABLE), "tls", "certificate refused", "authority is not in")


def test_an_authority_that_is_no_file_fails_at_tls(patient):
    patient.tls["ca_file"] = "/nonexistent/ca.pem"
    assert_ends(patient.examine(UNAVAILABLE), "tls", "/nonexistent/ca.pem")


def test_an_expired_certificate_fails_at_tls(place, start_server, authority):
    server = start_server(certificate=authority.issue("doctor-expired", expired=True))
    assert_ends(
        Patient(place, server).examine(UNAVAILABLE), "tls", "certificate has expired", "renew it"
    )


def test_a_certificate_that_ends_soon_draws_a_warning(place, start_server, authority):
    server = start_server(certificate=authority.issue("doctor-soon", days=5.5))
    steps = Patient(place, server).examine()
    assert list(steps) == STEPS
    assert steps["tls"]["outcome"] == "warning"
    assert steps["tls"]["certificate_days_left"] == 5
    assert "see that it is renewed" in steps["tls"]["advice"]


def test_a_certificate_for_another_name_fails_at_tls(place, start_server, authority):
    server = start_server(certificate=authority.issue("doctor-name", names=("cache.example",)))
    patient = Patient(place, server)
    assert_ends(
        patient.examine(UNAVAILABLE), "tls", "wanted localhost, the certificate is for cache.example"
    )
    patient.tls["server_name"] = "cache.example"
    assert list(patient.examine()) == STEPS


# The login


def test_a_wrong_password_fails_at_login(patient):
    patient.write_password(new_password())
    assert_ends(patient.examine(UNAVAILABLE), "login", "WRONGPASS", "ACL GETUSER app")


def test_a_user_that_is_off_fails_at_login(place, start_server):
    server = start_server()
    assert server.ask("ACL", "SETUSER", "app", "off") == b"OK"
    assert_ends(Patient(place, server).examine(UNAVAILABLE), "login", "WRONGPASS", "or it is off")


def answering(answer: bytes):
    """A server that says the same to every client, until its socket is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(65_536)
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_server_that_repeats_the_password_in_its_error_is_not_repeated(patient):
    password = patient.password_file.read_text()
    answer = f"-ERR unknown command `HELLO`, with args beginning with: `2`, `AUTH`, `{password}`\r\n"
    with answering(answer.encode()) as listener:
        patient.upstream = {
            "address": f"127.0.0.1:{listener.getsockname()[1]}", "tls": "off",
        }
        # `call` asserts that the password is nowhere.
        assert_ends(patient.examine(UNAVAILABLE), "login", "unknown command", "must be Redis 6")


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not RESP"),
        (b"+OK\r\n", "not an answer to HELLO"),
        (b"*-1\r\n", "not an answer to HELLO"),
        (b"*100000000\r\n", "not RESP"),
        (b"*1\r\n" * 20, "not RESP"),
        (b"$999999999999\r\n", "not RESP"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "wait until"),
        (b"", "closed the connection"),
        (b"$5\r\nab", "closed the connection"),
    ],
)
def test_whatever_a_server_answers_is_a_failure_with_words(patient, answer, words):
    with answering(answer) as listener:
        patient.upstream = {
            "address": f"127.0.0.1:{listener.getsockname()[1]}", "tls": "off",
        }
        assert_ends(patient.examine(UNAVAILABLE), "login", words)


# What the server is


def test_a_replica_draws_a_warning(place, start_server, server):
    replica = start_server()
    assert replica.ask("REPLICAOF", "127.0.0.1", server.port) == b"OK"
    steps = Patient(place, replica).examine()
    assert steps["server"]["outcome"] == "warning"
    assert "-READONLY" in steps["server"]["advice"]


def test_a_cluster_of_one_shard_is_well(place, start_server, authority):
    server = start_server(options=cluster_options(authority))
    join_cluster(server)
    steps = Patient(place, server).examine()
    assert (steps["server"]["mode"], steps["server"]["shards"]) == ("cluster", 1)
    assert steps["server"]["outcome"] == "ok"
    assert "SELECT is refused" in steps["server"]["message"]


def test_a_cluster_of_several_shards_draws_a_warning(place, start_server, authority):
    servers = [start_server(options=cluster_options(authority)) for _ in range(2)]
    join_cluster(*servers)
    steps = Patient(place, servers[0]).examine()
    assert steps["server"]["shards"] == 2
    assert steps["server"]["outcome"] == "warning"
    for words in ("2 shards", "-MOVED", "-CROSSSLOT", "past the proxy", "ElastiCache Serverless"):
        assert words in steps["server"]["advice"]


def test_a_cluster_whose_size_may_not_be_asked_is_left_open(place, start_server, authority):
    server = start_server(options=cluster_options(authority))
    join_cluster(server)
    steps = Patient(place, server, "consumer").examine()
    assert "shards" not in steps["server"]
    assert steps["server"]["outcome"] == "unknown"
    assert "could not be found out" in steps["server"]["advice"]
    assert "NOPERM" in steps["server"]["advice"]


# What the user may do


@pytest.mark.parametrize(
    "rules, access, differences",
    [
        ("~* &* +@all", "on ~* &* +@all", []),
        ("~a &b -@all +@read +acl", "on &b +@all -@all +acl +@read ~a", []),
        ("~a +@all (%R~b +get)", "on ~a +@all (+get %R~b)", []),
        ("~* +@all -config|set", "on ~* +@all", ["commands not allowed: config|set"]),
        ("~* &a +acl +set", "on ~* &a +acl", ["commands allowed beyond it: set"]),
        ("%R~a +acl", "on ~a +acl", ["keys not allowed: ~a", "keys allowed beyond it: %R~a"]),
        ("~* nopass +acl", "on ~* +acl", ["the user needs no password (nopass), and should"]),
    ],
)
def test_the_access_string_is_compared_with_what_the_server_says(
    place, start_server, rules, access, differences
):
    server = start_server()
    server.add_user("examined", *rules.split())
    patient = Patient(place, server, "examined")
    patient.user["access_string"] = access
    steps = patient.examine(UNAVAILABLE if differences else OK)
    assert steps["access"]["differences"] == differences
    assert steps["access"]["outcome"] == ("failed" if differences else "ok")


def test_acl_list_will_do_where_getuser_is_refused(place, start_server):
    server = start_server()
    server.add_user("examined", *"~a -@all +acl|list +get (~b +set)".split())
    patient = Patient(place, server, "examined")
    patient.user["access_string"] = "on ~a -@all +acl|list +get (~b +set)"
    assert patient.examine()["access"]["outcome"] == "ok"
    patient.user["access_string"] = "on ~a -@all +acl|list (~b +set)"
    assert patient.examine(UNAVAILABLE)["access"]["differences"] == [
        "commands allowed beyond it: get"
    ]


def test_an_access_string_for_a_newer_server_is_a_failure_here(patient):
    patient.user["access_string"] = "on ~* +hexpire"
    assert_ends(patient.examine(UNAVAILABLE), "access", "7.0.15", "later version")


# Listeners


def test_listeners_are_looked_at(patient, place):
    def address_step(expected):
        run = call("--config", patient.write(), "--format", "json")
        assert run.returncode == expected
        sections = json.loads(run.stdout)["sections"]
        return next(part for part in sections if part["kind"] == "listener")["steps"][0]

    assert address_step(OK)["outcome"] == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        patient.address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address_step(OK)["outcome"] == "warning"
    path = place / "doctor.sock"
    patient.address = f"unix:{path}"
    assert address_step(OK)["outcome"] == "ok"
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert address_step(OK)["outcome"] == "warning"
    # Stale now, which the proxy would clear away, and doctor leaves.
    assert address_step(OK)["outcome"] == "ok"
    assert path.exists()
    path.unlink()
    path.write_text("")
    assert address_step(UNAVAILABLE)["outcome"] == "failed"
    patient.address = "unix:/nonexistent/doctor.sock"
    assert "/nonexistent" in address_step(UNAVAILABLE)["message"]
