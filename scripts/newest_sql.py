#!/usr/bin/env python3
"""Puts a real MySQL 9 or MariaDB 11 into a folder, without installing anything on the machine.

Debian's stable releases carry no MySQL server and an older MariaDB, Debian unstable has both. The packages are
downloaded through apt (with package lists, status and cache of their own, so that the machine's stay
untouched), checked by apt against Debian's keyring, unpacked side by side, and started through their own
dynamic loader and libraries. No chroot, no root needed.

    newest_sql.py NAME [FOLDER]   puts `mysql9` or `mariadb11` into FOLDER (.cache/NAME of this checkout), if it
                                  is not there yet
    FOLDER/server OPTIONS         runs the server
    FOLDER/bootstrap.sql          what MariaDB is fed with `--bootstrap` to make a new data directory

Exit codes: 0 the server is there; 75 (EX_TEMPFAIL of sysexits.h) it cannot be had at the moment, and one line
says why; anything else is a fault of this script.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CHECKOUT = Path(__file__).resolve().parent.parent

# exec keeps the process id: whoever starts this script can signal the server itself.
LAUNCHER = """#!/bin/sh
usr=$(cd "$(dirname "$0")" && pwd)/root/usr
exec "$usr/{loader}" --library-path "$usr/{libraries}:$usr/lib/mysql/private" "$usr/sbin/{program}" \\
    --no-defaults --lc-messages-dir="$usr/share/{share}" --character-sets-dir="$usr/share/{share}/charsets" \\
    --plugin-dir="$usr/lib/mysql/plugin" "$@"
"""


@dataclass(frozen=True)
class Kind:
    """A server: what it is called, and how Debian packs it."""

    title: str
    package: str  # of the program; its libraries come along
    further: tuple[str, ...]  # packages whose own dependencies are not needed
    program: str
    share: str
    bootstrap: tuple[str, ...]  # files in `share` that make the system tables


KINDS = {
    "mysql9": Kind("MySQL 9", "mysql-server-core", (), "mysqld", "mysql", ()),
    "mariadb11": Kind(
        "MariaDB 11",
        "mariadb-server-core",
        ("mariadb-server",),  # its login plugins
        "mariadbd",
        "mariadb",
        ("mariadb_system_tables.sql", "mariadb_performance_tables.sql", "mariadb_system_tables_data.sql"),
    ),
}
BOOTSTRAP = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL, @skip_auth_anonymous = 1;\n"


class Unavailable(Exception):
    """The packages cannot be had here and now."""


def call(*command: str, folder: Path | None = None) -> str:
    """Runs `command` and returns what it printed; one that fails or hangs means that the server is unavailable."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=300,
        )
    except FileNotFoundError:
        raise Unavailable(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} did not finish within 300 s") from None
    if done.returncode:
        lines = done.stdout.splitlines() or [f"exit code {done.returncode}"]
        errors = [line for line in lines if line.startswith("E:")]
        raise Unavailable(f"{command[0]} failed: {(errors or lines)[-1]}")
    return done.stdout


def debian_mirror() -> str:
    """The Debian mirror that this machine's apt already uses."""
    listed = call("apt-get", "--print-uris", "update")
    found = re.search(r"^'(\S+/debian)/dists/[^/]+/InRelease'", listed, re.MULTILINE)
    if not found:
        raise Unavailable("apt on this machine uses no Debian mirror")
    return found[1]


def apt_options(work: Path) -> list[str]:
    """Makes apt look at Debian unstable only, and write below `work` only."""
    if not KEYRING.exists():
        raise Unavailable(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {debian_mirror()} sid main\n")
    (work / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def needed_packages(package: str, depends: str) -> list[str]:
    """`package` and every library below it, from what `apt-cache depends --recurse` printed.

    Programs that it depends on (perl, for a helper script) and what only they need are left out.
    """
    direct: dict[str, list[str]] = {}
    current: list[str] = []
    for line in depends.splitlines():
        if not line.startswith(" "):
            current = direct.setdefault(line, [])
        elif found := re.match(r"\s*\|?(?:Pre)?Depends: (lib\S+|zlib1g)$", line):
            current.append(found[1])
    needed: list[str] = []
    found_now = [package]
    while found_now:
        name = found_now.pop()
        if name not in needed:
            needed.append(name)
            found_now += direct.get(name, [])
    return needed


def download(kind: Kind, packages: Path, work: Path) -> None:
    """Downloads the server and its libraries as .deb files into `packages`."""
    options = apt_options(work)
    call("apt-get", *options, "update")
    others = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    only_depends = [f"--no-{relation}" for relation in others]
    depends = call("apt-cache", *options, "depends", "--recurse", *only_depends, kind.package)
    packages.mkdir()
    call("apt-get", *options, "download", *needed_packages(kind.package, depends), *kind.further, folder=packages)


def unpack(kind: Kind, packages: Path, folder: Path) -> None:
    """Unpacks the .deb files into `folder`/root and writes the launcher, and the bootstrap file, beside it."""
    folder.mkdir()
    for package in sorted(packages.glob("*.deb")):
        call("dpkg-deb", "-x", str(package), str(folder / "root"))
    usr = folder / "root" / "usr"
    loaders = sorted(usr.glob("lib*/ld-linux*.so.*"))
    libraries = sorted(usr.glob("lib/*-linux-gnu*"))
    if not loaders or not libraries:
        raise Unavailable("the packages hold no dynamic loader where it is expected")
    launcher = folder / "server"
    paths = {"loader": loaders[0].relative_to(usr), "libraries": libraries[0].relative_to(usr)}
    launcher.write_text(LAUNCHER.format(**paths, program=kind.program, share=kind.share))
    launcher.chmod(0o755)
    if kind.bootstrap:
        parts = [(usr / "share" / kind.share / name).read_text() for name in kind.bootstrap]
        (folder / "bootstrap.sql").write_text(BOOTSTRAP + "".join(parts))


def install(kind: Kind, folder: Path) -> str:
    """Makes `folder/server` exist, downloading only when it does not. Returns the server's version line."""
    if not (folder / "server").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="newest-sql-", dir=folder.parent) as temporary:
            work = Path(temporary)
            download(kind, work / "packages", work)
            unpack(kind, work / "packages", work / "new")
            call(str(work / "new" / "server"), "--version")
            # Last, and in one step: a folder that exists is whole.
            shutil.rmtree(folder, ignore_errors=True)
            (work / "new").rename(folder)
    return call(str(folder / "server"), "--version").strip()


def main() -> int:
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in KINDS:
        print(f"usage: {sys.argv[0]} {'|'.join(KINDS)} [FOLDER]", file=sys.stderr)
        return os.EX_USAGE
    kind = KINDS[sys.argv[1]]
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else CHECKOUT / ".cache" / sys.argv[1]
    try:
        version = install(kind, folder)
    except Unavailable as reason:
        print(f"{kind.title} cannot be had at the moment: {reason}", file=sys.stderr)
        return os.EX_TEMPFAIL
    print(f"{kind.title} is in {folder}: {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
