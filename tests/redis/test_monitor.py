"""MONITOR: what the server is given."""

from __future__ import annotations

import pytest

import coro
from coro import ClosedError, Coro
from coro.redis import Monitored, Redis, RedisConnectionError
from tests.redis.fake import FakeRedis, settle, with_fake
from tests.services import RedisServer


def test_monitor_tells_of_commands(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        monitor = redis.monitor()

        def watch() -> Coro[None]:
            seen: list[Monitored] = []
            while not seen or "last" not in seen[-1].command:
                seen.append((yield from monitor.next_command()))
            commands = [one.command for one in seen if "SETINFO" not in one.command and '"INFO"' not in one.command]
            large = '"' + "x" * 200_000 + '"'
            assert commands[-3:] == ['"SET" "key" "a \\"b\\" \\xff]"', f'"SET" "key" {large}', '"GET" "last"']
            assert seen[-1].db == 0 and seen[-1].time > 1_700_000_000 and ":" in seen[-1].client

        def use() -> Coro[None]:
            while not [one for one in (yield from redis.client_list()) if one["cmd"] == "monitor"]:
                yield from coro.checkpoint()
            yield from redis.set("key", b'a "b" \xff]')
            yield from redis.set("key", "x" * 200_000)
            yield from redis.get("last")

        yield from coro.gather(watch(), use())
        monitor.close()
        with pytest.raises(ClosedError):
            yield from monitor.next_command()
        assert "0 of 50 own connections lent" in repr(redis.pool)

    coro.run(main())


def test_monitor_sees_other_ways_in(redis_server: RedisServer) -> None:
    redis = Redis.from_url(redis_server.url(2))

    def main() -> Coro[None]:
        monitor = redis.monitor()

        def use() -> Coro[None]:
            while not [one for one in (yield from redis.client_list()) if one["cmd"] == "monitor"]:
                yield from coro.checkpoint()
            redis_server.command("ECHO", "by socket")
            yield from redis.eval("return redis.call('echo', 'by script')", 0)

        def watch() -> Coro[None]:
            clients: dict[str, tuple[str, int]] = {}
            while len(clients) < 2:
                one = yield from monitor.next_command()
                if one.command.lower().startswith('"echo"'):
                    clients[one.command] = (one.client, one.db)
            assert clients['"ECHO" "by socket"'] == (f"unix:{redis_server.socket}", 0)
            assert clients['"echo" "by script"'] == ("lua", 2)

        yield from coro.gather(watch(), use())
        monitor.close()

    coro.run(main())


@pytest.mark.parametrize("line", [b"+nonsense\r\n", b":1\r\n", b""])
def test_monitor_whose_connection_is_lost_can_begin_anew(line: bytes) -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        monitor = redis.monitor()

        def lose() -> Coro[None]:
            yield from fake.received(1)
            yield from settle()
            yield from fake.say(line)
            assert fake.stream is not None
            fake.stream.write_eof()

        def watch() -> Coro[None]:
            with pytest.raises(RedisConnectionError, match="MONITOR had been sent"):
                yield from monitor.next_command()

        yield from coro.gather(watch(), lose())

        def again() -> Coro[None]:
            yield from fake.received(2)
            yield from settle()
            yield from fake.say(b'+1.5 [0 [::1]:5] "PING"\r\n')

        def see() -> Coro[None]:
            one = yield from monitor.next_command()
            assert (one.time, one.client, one.command) == (1.5, "[::1]:5", '"PING"')

        yield from coro.gather(see(), again())
        monitor.close()

    coro.run(with_fake({b"MONITOR": b"+OK\r\n"}, body))
