"""What the integration tests stand on: real processes, raw sockets, independent parsers.

    tests ── Client (resp.py) ──────────────► reference server     "direct"
      │                                        (plain, same ACL users)
      ├──── Client ──► proxy ── TLS ─────────► server              "multiplexed", "dedicated"
      │              (proxy.py)                (server.py, certificates.py)
      └──── admin Client over TLS ───────────►

Nothing here shares code with the proxy: the RESP reader is written a second time, strictly, so
that a mistake in the proxy's framing cannot hide in the test's.
"""
