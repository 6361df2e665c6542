"""Scripts and functions that run inside the server.

Specification: https://redis.io/docs/latest/commands/?group=scripting
"""

from __future__ import annotations

from typing import Any

from coro.redis.commands.base import Key, S, Sender, flags
from coro.redis.replies import as_bools, as_bytes, function_stats, is_ok, libraries, text
from coro.redis.resp import Argument
from coro.task import Coro


class ScriptingCommands(Sender[S]):
    """Scripts, by their text or its digest, and functions, by their names."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """Run a script; what it returns. The first `numkeys` of the others are keys."""
        return self._send((b"EVAL", script, numkeys, *keys_and_args))

    def eval_ro(self, script: str, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """As `eval`, for a script that writes nothing: a replica can run it."""
        return self._send((b"EVAL_RO", script, numkeys, *keys_and_args))

    def evalsha(self, sha: Key, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """As `eval`, by the digest of a script that the server knows. `NoScriptError` if it does not."""
        return self._send((b"EVALSHA", sha, numkeys, *keys_and_args))

    def evalsha_ro(self, sha: Key, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """As `evalsha`, for a script that writes nothing."""
        return self._send((b"EVALSHA_RO", sha, numkeys, *keys_and_args))

    def script_exists(self, *args: Key) -> Coro[list[bool]]:
        """For each digest whether the server knows the script."""
        return self._send((b"SCRIPT", b"EXISTS", *args), as_bools)

    def script_flush(self, sync_type: str | None = None) -> Coro[bool]:
        """Have the server forget all scripts, "SYNC" or "ASYNC". True."""
        return self._send((b"SCRIPT", b"FLUSH", *([] if sync_type is None else [sync_type])), is_ok)

    def script_kill(self) -> Coro[bool]:
        """End the script that runs. True. `ReplyError` when none does, or it has written already."""
        return self._send((b"SCRIPT", b"KILL"), is_ok)

    def script_load(self, script: str) -> Coro[str]:
        """Have the server know a script; its digest."""
        return self._send((b"SCRIPT", b"LOAD", script), text)

    def fcall(self, function: Key, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """Call a function; what it returns. The first `numkeys` of the others are keys."""
        return self._send((b"FCALL", function, numkeys, *keys_and_args))

    def fcall_ro(self, function: Key, numkeys: int, *keys_and_args: Argument) -> Coro[Any]:
        """As `fcall`, for a function that writes nothing."""
        return self._send((b"FCALL_RO", function, numkeys, *keys_and_args))

    def function_delete(self, library: Key) -> Coro[bool]:
        """Delete a library of functions. True. `ReplyError` if there is none."""
        return self._send((b"FUNCTION", b"DELETE", library), is_ok)

    def function_dump(self) -> Coro[bytes]:
        """All libraries in the server's own form, for `function_restore`. Always bytes."""
        return self._send((b"FUNCTION", b"DUMP"), as_bytes)

    def function_flush(self, mode: str = "SYNC") -> Coro[bool]:
        """Delete all libraries. True."""
        return self._send((b"FUNCTION", b"FLUSH", mode), is_ok)

    def function_kill(self) -> Coro[bool]:
        """End the function that runs. True. `ReplyError` when none does, or it has written already."""
        return self._send((b"FUNCTION", b"KILL"), is_ok)

    def function_list(self, library: Key = "*", withcode: bool = False) -> Coro[list[dict[str, Any]]]:
        """About each library that matches, and the functions in it."""
        return self._send((b"FUNCTION", b"LIST", b"LIBRARYNAME", library, *flags(withcode=withcode)), libraries)

    def function_load(self, code: str, replace: bool = False) -> Coro[S]:
        """Load a library; its name. `ReplyError` if there is one of that name, unless `replace`."""
        return self._send((b"FUNCTION", b"LOAD", *flags(replace=replace), code))

    def function_restore(self, payload: bytes, policy: str = "APPEND") -> Coro[bool]:
        """Load what `function_dump` returned; `policy` is "APPEND", "REPLACE" or "FLUSH". True."""
        return self._send((b"FUNCTION", b"RESTORE", payload, policy), is_ok)

    def function_stats(self) -> Coro[dict[str, Any]]:
        """About the function that runs, and the engines."""
        return self._send((b"FUNCTION", b"STATS"), function_stats)
