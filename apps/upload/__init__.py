"""Takes in files over HTTP, for logged-in users: `coro run apps.upload`.

The job is the one that coro exists for, written as if it blocked: look the session up (Redis), stream the body to
disk, write the file's row (MySQL), answer. `handlers.py` is where to begin reading; `storage.py` tells in which order
things reach the disk, `store.py` what the databases keep.
"""

from apps.upload.app import main

__all__ = ["main"]
