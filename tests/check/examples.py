"""Programs for `coro check`: each line that is to be reported ends with `#!` and the mend."""

from __future__ import annotations

EXAMPLES = {
    "a call statement": """
        def work() -> Coro[None]:
            save(1)  #! yield from save(...)
            yield from save(1)
    """,
    "a method": """
        class Store:
            def save(self) -> Coro[None]:
                yield from coro.sleep(1)
            def work(self) -> Coro[None]:
                self.save()  #! yield from self.save()
                yield from self.save()
        class Other(Store):
            def work(self) -> Coro[None]:
                super().work()  #! yield from super().work()
                yield from super().work()
    """,
    "calls of coro": """
        def work(stream: coro.Stream, queue: coro.Queue[int]) -> Coro[None]:
            coro.sleep(1)  #! yield from coro.sleep(...)
            stream.write(b"")  #! yield from stream.write(...)
            queue.put(1)  #! yield from queue.put(...)
            coro.gather(save(), save())  #! yield from coro.gather(...)
            stream.close()
            yield from stream.write(b"")
    """,
    "commands that a pipeline queues": """
        from coro.redis import Pipeline, Redis, Transaction
        def work(redis: Redis, pipeline: Pipeline, transaction: Transaction) -> Coro[None]:
            redis.incr("n")  #! yield from redis.incr(...)
            pipeline.incr("n")
            transaction.incr("n")
            yield from pipeline.execute()
    """,
    "checkpoint": """
        def work() -> Coro[None]:
            coro.checkpoint()  #! yield from coro.checkpoint()
            yield from coro.checkpoint()
    """,
    "a callable": """
        def work(handler: Callable[[int], Coro[None]]) -> Coro[None]:
            handler(1)  #! yield from handler(...)
            yield from handler(1)
    """,
    "a function that hands on": """
        def twice(x: int) -> Coro[None]:
            return save(2 * x)
        def work() -> Coro[None]:
            twice(1)  #! yield from twice(...)
            yield from twice(1)
    """,
    "perhaps a Coro": """
        def maybe(x: int) -> Coro[None] | None:
            return save(x) if x else None
        def work() -> None:
            maybe(1)  #! yield from maybe(...)
    """,
    "a union inside of a Coro": """
        def find() -> Coro[int | None]:
            yield from coro.sleep(1)
            return 1
        def work() -> None:
            find()  #! yield from find()
    """,
    "a loose annotation": """
        def loose() -> Generator[Any, Any, int]:
            yield from coro.sleep(1)
            return 1
        def work() -> Coro[None]:
            loose()  #! yield from loose()
            yield from loose()
    """,
    "a function without annotations": """
        def work():
            save(1)  #! yield from save(...)
            yield from save(1)
    """,
    "outside of functions": """
        save(1)  #! coro.run(save(...))
        class Example:
            save(1)  #! coro.run(save(...))
    """,
    "inside of blocks": """
        def work(x: int) -> Coro[None]:
            with coro.timeout(1):
                save(1)  #! yield from save(...)
            try:
                save(1)  #! yield from save(...)
            except OSError:
                save(1)  #! yield from save(...)
            finally:
                save(1)  #! yield from save(...)
            match x:
                case 1:
                    save(1)  #! yield from save(...)
            def inner() -> None:
                save(1)  #! yield from save(...)
            yield from save(1)
    """,
    "conditional expressions": """
        def work(x: int) -> Coro[None]:
            save(1) if x else plain(1)  #! yield from save(...)
            x and save(1)  #! yield from save(...)
            [save(n) for n in range(x)]  #! yield from save(...)
            plain(1), save(2)  #! yield from save(...)
            yield from save(1)
    """,
    "many lines": """
        def work() -> Coro[None]:
            save(  #! yield from save(...)
                (1,
                2),
            ); plain(1)
            save(1); yield from save(1)  #! yield from save(...)
    """,
    "letters beyond ASCII": """
        def work() -> Coro[None]:
            größe = "äöü€😀"; save(größe); yield from save("é")  #! yield from save(...)
    """,
    "characters that end a line elsewhere": """
        def work() -> Coro[None]:
            x = "\u2028\x0c\x85"
            save(x); yield from save(1)  #! yield from save(...)
    """,
    "type: ignore": """
        def work() -> Coro[None]:
            save(1)  # type: ignore  #! yield from save(...)
            save(1, 2)  # type: ignore[call-arg]  #! yield from save(...)
            yield from save(1)
    """,
    "a variable never read": """
        def work() -> Coro[None]:
            done = load(1)  #! done = yield from load(...)
            yield from save(1)
        def reader() -> Coro[None]:
            done = load(1)
            def inner() -> Coro[bool]:
                return done
            yield from inner()
        def by_name() -> dict[str, object]:
            done = load(1)
            return locals()
        def shared() -> None:
            global job
            job = load(1)
        job = load(1)
        class Example:
            job = load(1)
    """,
    "yield": """
        def work() -> Coro[None]:
            yield save(1)  #! yield from save(...)
            x = yield load(1)  #! yield from load(...)
            yield coro.checkpoint()  #! yield from coro.checkpoint()
            yield from save(x)
        def jobs() -> Iterator[Coro[None]]:
            yield save(1)
        def untyped():
            yield save(1)
    """,
    "return": """
        def work() -> Coro[None]:
            yield from save(1)
            return save(1)  #! return (yield from save(...))
        def flag() -> Coro[bool]:
            yield from save(1)
            return load(1)  #! return (yield from load(...))
        def nothing() -> None:
            return save(1)  #! return (yield from save(...))
        def hands_on() -> Coro[None]:
            def inner() -> Coro[None]:
                yield from save(1)
            return inner()
        def makes() -> Coro[Coro[None]]:
            yield from save(1)
            return save(1)
        def anything() -> Coro[Any]:
            yield from save(1)
            return save(1)
        def untyped():
            return save(1)
    """,
    "a condition": """
        def work(x: int) -> Coro[None]:
            if load(1):  #! (yield from load(...))
                pass
            while not load(1):  #! (yield from load(...))
                pass
            y = x if load(1) else 2  #! (yield from load(...))
            z = load(1) and x  #! (yield from load(...))
            assert load(1)  #! (yield from load(...))
            if (yield from load(y or z)):
                pass
    """,
    "dropped on purpose": """
        def work() -> None:
            _ = save(1)
            _unused = save(1)
    """,
    "calls of other kinds": """
        def stop() -> NoReturn:
            raise SystemExit
        def numbers() -> Iterator[int]:
            yield 1
        def anything() -> Any: ...
        def untyped(): ...
        async def other() -> None: ...
        def work(group: coro.TaskGroup) -> Coro[None]:
            plain(1)
            print(save(1))
            anything()
            untyped()
            numbers()
            group.spawn(save(1))
            coro.background(save(1))
            yield from coro.gather(save(1), save(2))
            lambda: save(1)
            coro.run(save(1))
            list(map(save, [1]))
            stop()
            save(1)
    """,
    "what was put in before": """
        class Jobs:
            waiting: dict[str, Coro[None]]
        def work(jobs: Jobs, first: list[Coro[None]], queue: coro.Queue[Coro[None]]) -> Coro[None]:
            jobs.waiting.pop("a")
            jobs.waiting.setdefault("a", save(1))
            first.pop()
            next(iter(first))
            queue.get()  #! yield from queue.get()
            yield from queue.get()
    """,
    "a generator in sans-I/O style": """
        class Need: ...
        def packet() -> Generator[Need, None, bytes]:
            yield Need()
            return b""
        def work() -> Coro[None]:
            packet()
            yield from save(1)
    """,
    "what is no call": """
        class Job:
            @property
            def work(self) -> Coro[None]:
                return save(1)
            size = 1
        def run(job: Job, later: Coro[None]) -> Coro[None]:
            job.work  #! yield from job.work
            job.size
            later  #! yield from later
            {1: save(1), 2: job.size}  #! yield from save(...)
            yield from job.work
    """,
    "names that nobody reads": """
        def work() -> Coro[None]:
            a: Coro[None] = save(1)  #! a = yield from save(...)
            b = c = save(1)  #! b = yield from save(...)
            (d := save(1))  #! d = yield from save(...)
            e: Coro[None] = save(1)
            f = g = save(1)
            yield from e
            yield from g
    """,
    "a function without a name": """
        def work() -> Coro[None]:
            (lambda: save(1))()  #! yield from (lambda: save(1))()
            yield from save(1)
    """,
}
