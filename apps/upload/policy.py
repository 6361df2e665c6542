"""How much may be stored: decided before any byte of a body is taken, for every way in.

A user has a quota of bytes, and so many uploads that may be under way at once; the disk has so much room. What is
admitted counts as if it were stored already, until its request ends; so uploads that come together cannot overrun
together what each of them would have had room for, in whichever process they are (shared.py). An upload that does not
tell its length has all that is left of the quota for as long as it is under way.
"""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType
from typing import Self

import coro
from apps.upload.parts import PIECE_SIZE, TooLarge
from apps.upload.shared import Page, Room, Shared
from apps.upload.store import Metadata
from coro import Coro
from coro.http import HTTPError

logger = logging.getLogger("upload")

RETRY_SOON = [("Retry-After", "1")]
ATTEMPTS, PAUSE = 4, 0.02  # seconds: nobody is refused for an upload that has just ended but is still counted


class Policy:
    """What users may store. Without a limit, nothing is asked of the database."""

    def __init__(
        self, metadata: Metadata, shared: Shared, *, max_size: int | None, quota: int | None, parallel: int | None
    ) -> None:
        """`max_size`: bytes of an upload; `quota`: of each user's uploads; `parallel`: each user's uploads at once."""
        self.metadata = metadata
        self.shared = shared
        self.max_size = max_size
        self.quota = quota
        self.parallel = parallel
        self.under_way: Counter[int] = Counter()  # uploads of each user, in this process
        self.pending: Counter[int] = Counter()  # bytes of them that have no row yet

    def admit(self, user_id: int, size: int | None, missing: int | None) -> Coro[Admission]:
        """Admit an upload of `size` bytes, of which `missing` are still to come; None if the client has not told.

        It ends with the `with` block. Suspends. `TooLarge`, `HTTPError` 429, OSError (of `FULL`), `StoreDown`.
        """
        if self.max_size is not None and size is not None and size > self.max_size:
            raise TooLarge(f"an upload may have at most {self.max_size} bytes")
        if missing is None or missing <= PIECE_SIZE:  # looking costs more than it saves
            return (yield from self._admit_user(user_id, size, None))
        room = yield from self.shared.reserve(missing)
        try:
            return (yield from self._admit_user(user_id, size, room))
        except BaseException:
            room.release()
            raise

    def _admit_user(self, user_id: int, size: int | None, room: Room | None) -> Coro[Admission]:
        if self.quota is None and self.parallel is None:
            limited = room is not None or self.max_size is not None
            return Admission(None, user_id, 0, self.max_size, room) if limited else UNLIMITED
        for attempt in range(ATTEMPTS):
            if attempt:
                yield from coro.sleep(PAUSE)
            stored, gone = yield from self._stored(user_id)
            with (yield from self.shared.page(user_id)) as page:  # from here on nothing is waited for
                ended = 0 if gone is None else page.gone - gone  # meanwhile: they are in `stored` or they are not
                try:
                    limit, counted = self._decide(page, size, stored + ended)
                except (TooLarge, HTTPError):
                    if attempt == ATTEMPTS - 1 or not (ended or page.under_way()[0]):
                        raise
                    page.forget_dead()
                    page.write(self.under_way[user_id], self.pending[user_id])
                    continue
                page.write(self.under_way[user_id] + 1, self.pending[user_id] + counted)
                self.under_way[user_id] += 1
                self.pending[user_id] += counted
            break
        return Admission(self, user_id, counted, limit, room)

    def _stored(self, user_id: int) -> Coro[tuple[int, int | None]]:
        """Bytes of the user's uploads that have their rows, if that matters; and `Page.gone` of before."""
        if self.quota is None:
            return 0, None
        with (yield from self.shared.page(user_id)) as page:
            gone = page.gone
        return (yield from self.metadata.usage(user_id)), gone

    def _decide(self, page: Page, size: int | None, stored: int) -> tuple[int | None, int]:
        """How many bytes it may have, and how many count for it. `TooLarge`, `HTTPError` 429."""
        count, pending = page.under_way()
        if self.parallel is not None and count >= self.parallel:
            raise HTTPError(429, f"{self.parallel} of your uploads are under way: wait for one to end", RETRY_SOON)
        limit, counted = self.max_size, size or 0
        if self.quota is not None:
            left = self.quota - stored - pending
            if counted > left or (size is None and left <= 0):
                raise TooLarge(f"your uploads may have {self.quota} bytes together, and {max(left, 0)} are left")
            limit = left if limit is None else min(limit, left)
            counted = left if size is None else counted
        return limit, counted

    def end(self, user_id: int, counted: int) -> None:
        """An upload of the user is under way no more."""
        self.under_way[user_id] -= 1
        self.pending[user_id] -= counted
        try:
            page = self.shared.page_nowait(user_id)
            if page is None:
                coro.background(self._tell(user_id, counted), name="tell what has ended")
            else:
                self._write(page, user_id, counted)
        except OSError as error:
            self._report(error)

    def _tell(self, user_id: int, counted: int) -> Coro[None]:
        try:
            self._write((yield from self.shared.page(user_id)), user_id, counted)
        except OSError as error:
            self._report(error)

    def _write(self, page: Page, user_id: int, gone: int) -> None:
        with page:
            page.write(self.under_way[user_id], self.pending[user_id], gone)
        if not self.under_way[user_id]:
            del self.under_way[user_id], self.pending[user_id]

    def _report(self, error: OSError) -> None:
        logger.warning("uploads that have ended count until their user's next one: %s", error)


class Admission:
    """The right to store something, within the `with` block."""

    __slots__ = ("_counted", "_policy", "_user_id", "limit", "room")

    def __init__(
        self, policy: Policy | None, user_id: int, counted: int, limit: int | None, room: Room | None
    ) -> None:
        self.limit = limit  # bytes
        self.room = room
        self._policy = policy  # to be told of its end
        self._user_id = user_id
        self._counted = counted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.room is not None:
            self.room.release()
        if self._policy is not None:
            self._policy.end(self._user_id, self._counted)


UNLIMITED = Admission(None, 0, 0, None, None)  # of small uploads where nothing is limited, which are many
