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
    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, question: bytes) -> bytes | None:
        """The reply; None when the services are down."""
        try:
            if self.reader is None or self.writer is None:
                self.reader, self.writer = await asyncio.open_connection(*self.address, limit=MAX_REPLY)
            self.writer.write(question)
            await self.writer.drain()
            return await self.reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            return None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.reader = self.writer = None


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
        services.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await handle(reader, writer, Services(address), folder)

    async def serve_all() -> None:
        server = await asyncio.start_server(run, sock=listener, limit=MAX_HEAD, backlog=BACKLOG)
        await server.serve_forever()

    asyncio.run(serve_all())


if __name__ == "__main__":
    main(serve)
