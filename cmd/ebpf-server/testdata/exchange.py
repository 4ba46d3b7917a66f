"""An asyncio server, and clients of it, that tell what they exchanged: a line
"PORT SENT RECEIVED" for each connection, with the port of the client.

    exchange.py serve ADDRESS PORT N    ends when N connections are over
    exchange.py connect ADDRESS PORT N  keeps N connections open until it reads a line;
                                        then it resets every second one
"""

import asyncio
import contextlib
import socket
import struct
import sys


def tell(port, sent, received):
    print(port, sent, received, flush=True)


async def serve(address, port, n):
    over = asyncio.Semaphore(0)

    async def answer(reader, writer):
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65536):
                received += len(data)
                writer.write(data + data)
                await writer.drain()
        tell(writer.get_extra_info("peername")[1], 2 * received, received)
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
        over.release()

    async with await asyncio.start_server(answer, address, port, backlog=n):
        for _ in range(n):
            await over.acquire()


async def connect(address, port, n):
    async def ask(size):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(bytes(size))
        answer = await reader.readexactly(2 * size)
        tell(writer.get_extra_info("sockname")[1], size, len(answer))
        return writer

    writers = await asyncio.gather(*(ask(1 + 1000 * i) for i in range(n)))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for i, writer in enumerate(writers):
        if i % 2 == 1:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        await writer.wait_closed()


role, address, port, n = sys.argv[1:]
asyncio.run({"serve": serve, "connect": connect}[role](address, int(port), int(n)))
