"""A TLS server between the proxy and redis-server that records every byte and can misbehave.

    proxy ── TLS ──► Relay ── TLS ──► redis-server, or a server that has no TLS
                     │ records both directions, connection by connection
                     └ holds replies back, or cuts after n bytes of them

It shows what really went upstream (a client's password must not) and makes losses happen at an
exact byte.
"""

import asyncio
import ssl
import threading

from .ports import free_port
from .server import RedisServer

READ_BYTES = 64 * 1024


class Recording:
    """One upstream connection as it passed through."""

    def __init__(self):
        self.sent = bytearray()
        self.received = bytearray()


class Relay:
    def __init__(self, server: RedisServer, certificate):
        self.server = server
        self.authority = server.authority
        self.port = free_port()
        self.recordings: list[Recording] = []
        self.cut_after_reply_bytes = None
        self._held = False
        self._writers: list[asyncio.StreamWriter] = []
        self._accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._accepting.load_cert_chain(certificate.certificate_file, certificate.key_file)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._resume = self._run(self._make_event())
        self._listener = self._run(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._accepting)
        )

    def sent(self) -> bytes:
        """Everything the proxy sent upstream, over all connections."""
        return b"".join(bytes(recording.sent) for recording in self.recordings)

    def hold_replies(self) -> None:
        """From now on nothing comes back from the server until `release_replies`."""
        self._run(self._set_held(True))

    def release_replies(self) -> None:
        self._run(self._set_held(False))

    def cut(self) -> None:
        """Closes every connection at once, without a TLS goodbye."""
        self._run(self._abort_all())

    def lead_to(self, server: RedisServer) -> None:
        """New connections go to this server, as when a name gets another address; old ones stay."""
        self.server = server

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(15)

    async def _make_event(self):
        event = asyncio.Event()
        event.set()
        return event

    async def _set_held(self, held: bool):
        self._resume.clear() if held else self._resume.set()

    async def _abort_all(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _close(self):
        self._listener.close()
        await self._abort_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        recording = Recording()
        self.recordings.append(recording)
        try:
            context = self.server.client_context
            server_reader, server_writer = await asyncio.open_connection(
                *self.server.address, ssl=context,
                server_hostname="localhost" if context else None,
            )
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, server_writer]
        await asyncio.gather(
            self._pump(reader, server_writer, recording.sent, replies=False),
            self._pump(server_reader, writer, recording.received, replies=True),
            return_exceptions=True,
        )

    async def _pump(self, reader, writer, record: bytearray, replies: bool):
        try:
            while data := await reader.read(READ_BYTES):
                if replies:
                    await self._resume.wait()
                    limit = self.cut_after_reply_bytes
                    if limit is not None:
                        if len(data) > limit:
                            writer.write(data[:limit])
                            await writer.drain()
                            self.cut_after_reply_bytes = None
                            await self._abort_all()
                            return
                        self.cut_after_reply_bytes = limit - len(data)
                record += data
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort() if not replies else writer.close()
