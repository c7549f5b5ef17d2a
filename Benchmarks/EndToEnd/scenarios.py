"""What the clients do, scenario by scenario."""

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Scenario:
    """One way of asking; SET and GET take turns in all of them."""

    name: str
    title: str
    clients: int = 50
    pipeline: int = 1
    value_bytes: int = 64
    mode: str = "closed"
    rate: int = 0
    # Part of --quick.
    quick: bool = False
    # False: only if it is asked for.
    usual: bool = True

    def load_arguments(self) -> list:
        arguments = ["--mode", self.mode, "--clients", self.clients, "--pipeline", self.pipeline,
                     "--value-bytes", self.value_bytes]
        return arguments + (["--rate", self.rate] if self.rate else [])


SCENARIOS = [
    Scenario("p1", "64 B, P=1, 50 clients", quick=True),
    Scenario("p16", "64 B, P=16, 50 clients", pipeline=16, quick=True),
    Scenario("p100", "64 B, P=100, 50 clients", pipeline=100, quick=True),
    Scenario("clients-1000", "64 B, P=1, 1,000 clients", clients=1000),
    Scenario("clients-1", "64 B, P=1, one client", clients=1),
    Scenario("clients-4", "64 B, P=1, 4 clients", clients=4),
    Scenario("16k", "16 KiB, P=1, 50 clients", value_bytes=16 * KIB, quick=True),
    Scenario("1m", "1 MiB, P=1, 8 clients", clients=8, value_bytes=MIB),
    Scenario("churn", "connect, one command, close; 50 at a time", mode="churn", quick=True),
    Scenario("rate", "64 B, 5,000 requests/s in all, 50 clients", mode="rate", rate=5000,
             quick=True),
    # As many clients for each of two workers as one has above.
    Scenario("p1-double", "64 B, P=1, 100 clients", clients=100, usual=False),
    Scenario("p16-double", "64 B, P=16, 100 clients", clients=100, pipeline=16, usual=False),
    Scenario("p100-double", "64 B, P=100, 100 clients", clients=100, pipeline=100, usual=False),
]

# Clients that have sent one command and stay. More need more than 20,000 descriptors in a relay.
IDLE_CLIENTS = (5000, 9500)
IDLE_CLIENTS_QUICK = (200,)
