"""The same random commands to a server and to the proxy, and every reply compared byte for byte.

    commands.py ── from the server's COMMAND DOCS ──►  scenario.py   what several sessions do
    tables.py   ── what cannot be compared, and why         │
                                                            ▼
                                   ┌── plain Unix socket ──► reference server
                         pair.py ──┤
                                   └── proxy ── TLS ───────► other server
"""
