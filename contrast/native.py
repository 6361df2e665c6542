"""The job with a native coroutine for each connection, on asyncio: `await` waits, and the loop resumes another.

What a connection is at are suspended frames on the heap, as with generators: async/await is the same machine, with
words of its own. What differs is what stands below: transports, protocols and futures between socket and task.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from contrast.job import BACKLOG, CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, Upload, main


class Services:
    """A connection for each question that is under way, kept for the next one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, question: bytes) -> bytes | None:
        """The reply; None when the services are down."""
        try:
            stream = self.idle.pop() if self.idle else await asyncio.open_connection(*self.address, limit=MAX_REPLY)
        except OSError:
            return None
        reader, writer = stream
        reply = None
        try:
            writer.write(question)
            await writer.drain()
            reply = await reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            if reply is None:
                writer.close()
            else:
                self.idle.append(stream)
        return reply


async def handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, services: Services, folder: Path
) -> None:  # fmt: skip
    try:
        while True:
            head = await reader.readuntil(END_OF_HEAD)
            with Upload(folder, head) as upload:
                upload.admit(await services.ask(upload.session))
                while upload.left:
                    upload.write(await reader.read(min(upload.left, CHUNK)))
                if upload.admitted:
                    upload.acknowledge(await services.ask(upload.complete()))
            writer.write(upload.answer())
            await writer.drain()
    finally:
        writer.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    services = Services(address)

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await handle(reader, writer, services, folder)

    async def serve_all() -> None:
        server = await asyncio.start_server(run, sock=listener, limit=MAX_HEAD, backlog=BACKLOG)
        await server.serve_forever()

    asyncio.run(serve_all())


if __name__ == "__main__":
    main(serve)
