"""The manual's recipes, run exactly as they are printed there, but for the proxy's address.

What cannot be run here, because it needs a cluster, an engine, AWS or a program that Debian does not
have, is looked at for what it names: files, flags, resources.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from clients import NODE_PATH
from conftest import MODES
from harness.ports import free_port
from harness.process import Process, wait_until
from harness.proxy import REPOSITORY, Listener, Proxy, Upstream, binary

DOCUMENT = REPOSITORY / "Sources/RedisAuthProxy/Documentation.docc/Recipes.md"
PORT, SOCKET = "6379", "/run/app/redis.sock"
LIMIT_SECONDS = 90
# Every block of the document, by section: what has no line here has no test either.
BLOCKS = {
    "PHP": ["ini", "php", "php"],
    "Rails": ["ruby"],
    "Sidekiq": ["ruby"],
    "Celery": ["python", "sh"],
    "Node": ["js"],
    "redis-cli": ["sh"],
    "Benchmarks": ["sh", "sh"],
    "Waiting for the proxy": ["sh"],
    "systemd": ["ini"],
    "Kubernetes": ["sh", "sh"],
    "ElastiCache with IAM": ["sh", "sh", "json", "sh", "sh"],
}


def sections() -> dict:
    """By heading, the text below it."""
    parts = re.split(r"(?m)^## (.*)\n", DOCUMENT.read_text())
    return dict(zip(parts[1::2], parts[2::2]))


def blocks(section: str) -> list:
    """Pairs of a language and the text."""
    return re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", sections()[section])


def inline(section: str, start: str) -> str:
    """What stands in the text between backquotes and begins so."""
    text = re.sub(r"(?ms)^```.*?^```$", "", sections()[section])
    [found] = [each for each in re.findall(r"`([^`]+)`", text) if each.startswith(start)]
    return re.sub(r"\s+", " ", found)


def commands(text: str) -> list:
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


@dataclass
class Kitchen:
    """A directory to run recipes in, and the proxy that they are about."""

    place: Path
    server: object
    port: int
    socket: Path

    def block(self, section: str, number: int = 0) -> str:
        return self.here(blocks(section)[number][1])

    def here(self, text: str) -> str:
        return re.sub(rf"\b{PORT}\b", str(self.port), text).replace(SOCKET, str(self.socket))

    def write(self, name: str, text: str) -> Path:
        file = self.place / name
        file.write_text(text)
        return file

    @property
    def environment(self) -> dict:
        ours = self.place / "bin"
        ours.mkdir(exist_ok=True)
        if not (ours / "redis-auth-proxy").exists():
            (ours / "redis-auth-proxy").symlink_to(binary())
        paths = [str(ours), str(Path(sys.executable).parent), os.environ["PATH"]]
        return os.environ | {
            "PATH": ":".join(paths), "NODE_PATH": NODE_PATH, "AWS_DEFAULT_REGION": "us-east-1",
            "HOME": str(self.place),
        }

    def run(self, *command) -> str:
        """What it prints; it must end with 0."""
        run = subprocess.run(
            [str(each) for each in command], cwd=self.place, env=self.environment,
            capture_output=True, text=True, timeout=LIMIT_SECONDS,
        )
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def shell(self, text: str) -> str:
        return self.run("sh", "-eu", "-c", text)

    def start(self, *command) -> Process:
        return Process(
            ["env", "-C", self.place, *command], self.place / "process.log",
            environment=self.environment,
        )

    def value(self, key: str, database: int = 0):
        with self.server.admin() as admin:
            admin.value("SELECT", database)
            return admin.value("GET", key)

    def keys(self, pattern: str, database: int = 0) -> list:
        with self.server.admin() as admin:
            admin.value("SELECT", database)
            return admin.value("KEYS", pattern)


@pytest.fixture(scope="module", params=MODES)
def proxy(request, directory, server):
    mode = request.param
    path = directory / f"recipes-{mode}.sock"
    running = Proxy(
        directory / f"recipes-proxy-{mode}", {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app", mode), Listener("app", mode, path=path)],
    )
    yield running
    assert running.stop() == 0


@pytest.fixture
def kitchen(proxy, server, tmp_path):
    with server.admin() as admin:
        assert admin.value("FLUSHALL") == b"OK"
    tcp, unix = proxy.listeners
    return Kitchen(tmp_path, server, tcp.address[1], unix.address)


def test_every_recipe_has_a_test():
    found = {name: [language for language, _ in blocks(name)] for name in sections()}
    assert {name: languages for name, languages in found.items() if languages} == BLOCKS
    # Nothing is indented or fenced in a way that would not be seen above.
    assert DOCUMENT.read_text().count("```") == 2 * sum(map(len, BLOCKS.values()))


# PHP


def visit(kitchen: Kitchen, ini: str) -> list:
    """What the page says to a browser that comes twice."""
    settings = kitchen.write("php.ini", ini)
    (kitchen.place / "public").mkdir()
    kitchen.write("public/index.php", kitchen.block("PHP", 1))
    port = free_port()
    web = kitchen.start("php", "-c", settings, "-S", f"127.0.0.1:{port}", "-t", "public")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, web, "PHP's web server")
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        return [
            browser.open(f"http://127.0.0.1:{port}/", timeout=30).read().decode()
            for _ in range(2)
        ]
    finally:
        web.kill()


def test_php_keeps_sessions(kitchen):
    assert visit(kitchen, kitchen.block("PHP")) == ["1", "2"]
    assert len(kitchen.keys("session:*")) == 1


def test_php_keeps_sessions_over_the_socket(kitchen):
    path = kitchen.here(inline("PHP", "unix:"))
    tcp = re.search('save_path = (".*")', kitchen.block("PHP")).group(1)
    assert visit(kitchen, kitchen.block("PHP").replace(tcp, f'"{path}"')) == ["1", "2"]
    assert len(kitchen.keys("session:*")) == 1


def test_php_keeps_a_cache(kitchen):
    script = kitchen.write("cache.php", kitchen.block("PHP", 2))
    first = kitchen.run("php", script)
    assert first.startswith("made at ")
    with kitchen.server.admin() as admin:
        assert 0 < admin.value("TTL", "cache:report") <= 60
        admin.value("SET", "cache:report", "kept")
    assert kitchen.run("php", script) == "kept"


# Ruby


def test_rails_keeps_a_cache(kitchen):
    kitchen.write("production.rb", kitchen.block("Rails"))
    script = kitchen.write(
        "cache.rb",
        """
require "logger"
require "active_support"
require "active_support/cache"
config = Struct.new(:cache_store).new
eval File.read("production.rb")
cache = ActiveSupport::Cache.lookup_store(*config.cache_store)
2.times { |turn| puts cache.fetch("report") { "made in turn #{turn}" } }
puts cache.fetch_multi("report", "other") { |name| name.upcase }
cache.delete("other")
puts cache.exist?("other")
""",
    )
    assert kitchen.run("ruby", script).splitlines() == [
        *["made in turn 0"] * 2, '{"report"=>"made in turn 0", "other"=>"OTHER"}', "false",
    ]
    assert kitchen.keys("*", database=1) == [b"cache:report"]


def test_sidekiq_works_jobs_off(kitchen):
    kitchen.write("initializer.rb", kitchen.block("Sidekiq"))
    application = kitchen.write(
        "application.rb",
        """
require "sidekiq"
load "./initializer.rb"
class Job
  include Sidekiq::Worker
  def perform(name)
    Sidekiq.redis { |redis| redis.incr("done:#{name}") }
  end
end
""",
    )
    worker = kitchen.start("sidekiq", "-r", application, "-c", "3", "-q", "default", "-t", "5")
    try:
        names = [f"job{number}" for number in range(20)]
        enqueue = "ARGV.each { |name| Job.perform_async(name) }"
        kitchen.run("ruby", "-r", application, "-e", enqueue, *names)
        wait_until(
            lambda: len(kitchen.keys("done:*")) == len(names), worker, "all jobs are done", 60
        )
        assert {kitchen.value(f"done:{name}") for name in names} == {b"1"}
    finally:
        code = worker.stop(signal.SIGTERM, 30)
    assert code == 0, worker.log()
    assert "Connection" not in worker.log()


# Python


def test_celery_works_tasks_off(kitchen):
    kitchen.write("tasks.py", kitchen.block("Celery"))
    worker = kitchen.start(*shlex.split(kitchen.block("Celery", 1)))
    call = "from tasks import add; print(*(add.delay(n, n).get(timeout=60) for n in range(10)))"
    try:
        assert kitchen.run(sys.executable, "-c", call).split() == [
            str(2 * number) for number in range(10)
        ]
        assert len(kitchen.keys("celery-task-meta-*", database=1)) == 10
    finally:
        code = worker.stop(signal.SIGTERM, 60)
    assert code == 0, worker.log()


# Node


def test_node_sets_and_gets(kitchen):
    script = kitchen.write("greet.js", kitchen.block("Node"))
    assert kitchen.run("node", script) == "hello\n"
    assert kitchen.value("greeting") == b"hello"


def test_node_sets_and_gets_over_the_socket(kitchen):
    block = kitchen.block("Node")
    [call] = re.findall(r"createClient\(\{.*\}\)", block)
    script = kitchen.write(
        "greet.js", block.replace(call, kitchen.here(inline("Node", "createClient")))
    )
    assert kitchen.run("node", script) == "hello\n"


# Tools


def test_redis_cli_says_what_is_there_and_who_it_is(kitchen):
    assert kitchen.shell(kitchen.block("redis-cli")).split() == ["OK", "hello", "app"]


def test_redis_benchmark_runs_to_its_end(kitchen):
    lines = kitchen.shell(kitchen.block("Benchmarks")).replace("\r", "\n").splitlines()
    results = [line for line in lines if re.match(r"(SET|GET): [\d.]+ requests per second", line)]
    assert len(results) == 4


def test_memtier_is_called_with_the_proxys_address():
    [(_, text)] = blocks("Benchmarks")[1:]
    assert text.startswith("memtier_benchmark --server=127.0.0.1 --port=6379 --protocol=redis ")


def test_a_script_waits_for_the_proxy(kitchen):
    assert kitchen.shell(kitchen.block("Waiting for the proxy")) == "PONG\n"


def test_a_unit_waits_for_the_proxy(kitchen):
    [command] = re.findall("ExecStartPre=(.*)", kitchen.block("systemd"))
    assert kitchen.run(*shlex.split(command)) == ""


# What needs others


def test_the_kubernetes_commands_name_what_is_in_the_files():
    text = (REPOSITORY / "config/kubernetes.yaml").read_text()
    documents = {each["kind"]: each for each in yaml.safe_load_all(text) if each}
    create, apply, status, execute = map(shlex.split, commands(blocks("Kubernetes")[0][1]))
    assert " ".join(create) in text
    assert (REPOSITORY / apply[-1]).is_file()
    deployment = f"deployment/{documents['Deployment']['metadata']['name']}"
    assert status[-1] == execute[2] == deployment
    [sidecar] = documents["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    assert execute[execute.index("--container") + 1] == sidecar["name"]
    called = execute[execute.index("--") + 1 :]
    assert called == ["redis-auth-proxy", "doctor", *sidecar["args"][1:]]
    [build] = map(shlex.split, commands(blocks("Kubernetes")[1][1]))
    assert (REPOSITORY / build[build.index("--file") + 1]).is_file()
    assert build[build.index("--tag") + 1] == sidecar["image"]


def test_the_aws_commands_are_accepted_by_aws_s_own_tool(kitchen):
    """Which checks names and types against its model, and sends nothing."""
    section = "ElastiCache with IAM"
    kitchen.write("policy.json", kitchen.block(section, 2))
    called = [
        command for number in (0, 1, 3) for command in commands(kitchen.block(section, number))
    ] + [inline(section, "aws elasticache modify-serverless-cache")]
    assert len(called) == 5
    for command in called:
        assert command.startswith("aws ")
        kitchen.run(*shlex.split(command), "--generate-cli-skeleton", "output")
    with pytest.raises(AssertionError, match="--user-idx"):
        kitchen.run("aws", "elasticache", "delete-user", "--user-idx", "app",
                    "--generate-cli-skeleton", "output")  # fmt: skip


def test_the_policy_and_the_example_are_about_what_the_commands_make(kitchen):
    section = "ElastiCache with IAM"
    create, attach = blocks(section)[0][1], blocks(section)[1][1]
    file = REPOSITORY / "config/examples/iam-elasticache.yaml"
    example = yaml.safe_load(file.read_text())
    [(name, user)] = example["users"].items()
    iam = user["credentials"]["iam"]
    assert f"--user-id {name} --user-name {name} " in create
    assert f"--user-ids {name}" in attach
    assert f"--replication-group-id {iam['cache_name']} " in attach
    [statement] = json.loads(blocks(section)[2][1])["Statement"]
    assert statement["Action"] == "elasticache:Connect"
    account = f"arn:aws:elasticache:{iam['region']}:123456789012"
    assert statement["Resource"] == [
        f"{account}:replicationgroup:{iam['cache_name']}", f"{account}:user:{name}",
    ]
    # The access string holds ElastiCache's rules, and the proxy takes it back without a word.
    [access] = re.findall('--access-string "(.*)"', create)
    user["access_string"] = access
    checked = kitchen.write("proxy.yaml", yaml.safe_dump(example))
    output = kitchen.shell(f"redis-auth-proxy check --config {checked} 2>&1")
    assert "warning" not in output
    [test] = commands(blocks(section)[4][1])
    assert test == f"redis-auth-proxy run --config {file.relative_to(REPOSITORY)} --connection-test"
