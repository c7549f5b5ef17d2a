"""The sidecar of config/kubernetes.yaml: its configuration, its probes, and what it may do."""

import os
import subprocess

import pytest
import yaml

from harness.proxy import REPOSITORY, Listener, Upstream, binary

FILE = REPOSITORY / "config" / "kubernetes.yaml"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture(scope="module")
def documents() -> dict:
    """By kind."""
    documents = [each for each in yaml.safe_load_all(FILE.read_text()) if each]
    assert all(each["apiVersion"] and each["metadata"]["name"] for each in documents)
    return {each["kind"]: each for each in documents}


@pytest.fixture(scope="module")
def pod(documents) -> dict:
    deployment = documents["Deployment"]
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


@pytest.fixture(scope="module")
def sidecar(pod) -> dict:
    [sidecar] = pod["initContainers"]
    return sidecar


@pytest.fixture(scope="module")
def configuration(documents) -> dict:
    return yaml.safe_load(documents["ConfigMap"]["data"]["proxy.yaml"])


def listener_of(configuration) -> str:
    [listener] = configuration["listeners"]
    return listener["address"]


def call(*arguments) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
    return subprocess.run(
        [binary(), *arguments], capture_output=True, text=True, timeout=30, env=environment
    )


def test_the_configuration_is_valid(documents, place):
    file = place / "proxy.yaml"
    file.write_text(documents["ConfigMap"]["data"]["proxy.yaml"])
    run = call("check", "--config", file)
    assert run.returncode == 0
    assert "cannot be read now" in run.stderr and run.stderr.count("\n") == 1


def test_every_file_of_the_configuration_is_mounted_read_only(pod, sidecar, configuration):
    mounts = {each["mountPath"]: each for each in sidecar["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert {each["name"] for each in mounts.values()} == set(volumes)
    assert all(each["readOnly"] for each in mounts.values())
    [user] = configuration["users"].values()
    directory, _, key = user["credentials"]["password_file"].rpartition("/")
    secret = volumes[mounts[directory]["name"]]["secret"]
    assert f"generic {secret['secretName']} --from-file={key}=" in FILE.read_text()
    # The group of the mount is the pod's fsGroup, and nobody else may read.
    assert secret["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == sidecar["securityContext"]["runAsGroup"]
    assert sidecar["args"][:2] == ["run", "--config"]
    directory, _, key = sidecar["args"][2].rpartition("/")
    assert volumes[mounts[directory]["name"]]["configMap"]["name"] == "redis-auth-proxy"
    assert key == "proxy.yaml"


def test_it_is_a_sidecar_that_may_do_nothing_it_need_not(pod, sidecar):
    assert sidecar["restartPolicy"] == "Always"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert sidecar["securityContext"]["allowPrivilegeEscalation"] is False
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert sidecar["securityContext"]["runAsUser"] > 0
    assert {"requests", "limits"} <= set(sidecar["resources"])
    [application] = pod["containers"]
    # The kernel lets a process be traced and its files be read by its own user.
    assert application["securityContext"]["runAsUser"] != sidecar["securityContext"]["runAsUser"]
    assert all("secret" not in str(each) for each in (application, sidecar["args"]))


def test_the_application_is_pointed_at_the_listener(pod, configuration):
    [application] = pod["containers"]
    assert f"redis://{listener_of(configuration)}/" in str(application["env"])


def test_the_kubelet_gives_each_probe_the_time_that_it_takes(sidecar):
    for name in PROBES:
        command = sidecar[name]["exec"]["command"]
        timeout = command[command.index("--timeout") + 1]
        assert int(timeout.removesuffix("s")) < sidecar[name]["timeoutSeconds"]


@pytest.mark.parametrize("has_server", [True, False])
def test_the_probes_say_what_they_are_for(
    sidecar, configuration, server, start_proxy, start_server, has_server
):
    upstream = server if has_server else start_server(start=False)
    listener = Listener("app")
    start_proxy(
        {"cache": Upstream.verified(upstream)}, {"app": server.passwords["app"]}, [listener],
        upstream_wait="500ms",
    )
    outcomes = {}
    for name in PROBES:
        program, *arguments = sidecar[name]["exec"]["command"]
        assert program == "redis-auth-proxy"
        assert listener_of(configuration) in arguments
        address = listener.settings["address"]
        arguments = [address if each == listener_of(configuration) else each for each in arguments]
        outcomes[name] = call(*arguments).returncode
    # Starting the proxy again would not bring its server back.
    expected = 0 if has_server else 69
    assert outcomes == {
        "startupProbe": expected, "livenessProbe": 0, "readinessProbe": expected,
    }
