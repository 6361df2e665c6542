"""How much may be stored: decided before any byte of a body is taken, for every way in.

A user has a quota of bytes, and so many uploads that may be under way at once; the disk has so much room. What is
admitted counts as if it were stored already, until its request ends; so uploads that come together cannot overrun
together what each of them would have had room for. An upload that does not tell its length has all that is left of the
quota for as long as it is under way. Each worker knows its own uploads; between workers the table and the disk speak.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from apps.upload.storage import Room, Storage, TooLarge
from apps.upload.store import Metadata
from coro import Coro
from coro.http import HTTPError

RETRY_SOON = [("Retry-After", "1")]


class Policy:
    """What users may store. Without a limit, nothing is asked of the database."""

    def __init__(self, metadata: Metadata, storage: Storage, *, quota: int | None, parallel: int | None) -> None:
        """`quota`: bytes of each user's uploads; `parallel`: each user's uploads at once, in this process."""
        self.metadata = metadata
        self.storage = storage
        self.quota = quota
        self.parallel = parallel
        self.under_way: Counter[int] = Counter()  # uploads of each user
        self.pending: Counter[int] = Counter()  # bytes of them that have no row yet

    def admit(self, user_id: int, size: int | None, missing: int | None) -> Coro[Admission]:
        """Admit an upload of `size` bytes, of which `missing` are still to come; None if the client has not told.

        It ends with the `with` block. Suspends. `TooLarge`, `HTTPError` 429, OSError (of `FULL`), `StoreDown`.
        """
        stored = 0 if self.quota is None else (yield from self.metadata.usage(user_id))
        # From here on nothing is waited for.
        if self.parallel is not None and self.under_way[user_id] >= self.parallel:
            raise HTTPError(429, f"{self.parallel} of your uploads are under way: wait for one to end", RETRY_SOON)
        limit, counted = self.storage.max_size, size or 0
        if limit is not None and counted > limit:
            raise TooLarge(f"an upload may have at most {limit} bytes")
        if self.quota is not None:
            left = self.quota - stored - self.pending[user_id]
            if counted > left or (size is None and left <= 0):
                raise TooLarge(f"your uploads may have {self.quota} bytes together, and {max(left, 0)} are left")
            limit = left if limit is None else min(limit, left)
            counted = left if size is None else counted
        room = self.storage.reserve(missing) if missing else None
        if room is None and limit is None and self.quota is None and self.parallel is None:
            return UNLIMITED
        return Admission(self, user_id, counted, limit, room)


class Admission:
    """The right to store something, within the `with` block."""

    __slots__ = ("_counted", "_policy", "_user_id", "limit", "room")

    def __init__(
        self, policy: Policy | None, user_id: int, counted: int, limit: int | None, room: Room | None
    ) -> None:
        self.limit = limit  # bytes
        self.room = room
        self._policy = policy
        self._user_id = user_id
        self._counted = counted

    def __enter__(self) -> Self:
        if self._policy is not None:
            self._policy.under_way[self._user_id] += 1
            self._policy.pending[self._user_id] += self._counted
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.room is not None:
            self.room.release()
        policy, user_id = self._policy, self._user_id
        if policy is not None:
            policy.pending[user_id] -= self._counted
            policy.under_way[user_id] -= 1
            if not policy.under_way[user_id]:
                del policy.under_way[user_id], policy.pending[user_id]


UNLIMITED = Admission(None, 0, 0, None, None)  # of small uploads where nothing is limited, which are many
