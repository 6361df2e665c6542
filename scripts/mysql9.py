#!/usr/bin/env python3
"""Puts a real MySQL 9 server into a folder, without installing anything on the machine.

Debian's stable releases carry no MySQL server, Debian unstable does. Its packages are downloaded through apt
(with package lists, status and cache of their own, so that the machine's stay untouched), checked by apt
against Debian's keyring, unpacked side by side, and started through their own dynamic loader and libraries.
No chroot, no root needed.

    mysql9.py [FOLDER]      puts it into FOLDER (.cache/mysql9 of this checkout), if it is not there yet
    FOLDER/mysqld OPTIONS   runs the server

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
from pathlib import Path

PACKAGE = "mysql-server-core"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CHECKOUT = Path(__file__).resolve().parent.parent

# exec keeps the process id: whoever starts this script can signal the server itself.
LAUNCHER = """#!/bin/sh
usr=$(cd "$(dirname "$0")" && pwd)/root/usr
exec "$usr/{loader}" --library-path "$usr/{libraries}:$usr/lib/mysql/private" "$usr/sbin/mysqld" \\
    --no-defaults --lc-messages-dir="$usr/share/mysql" --character-sets-dir="$usr/share/mysql/charsets" \\
    --plugin-dir="$usr/lib/mysql/plugin" "$@"
"""


class Unavailable(Exception):
    """The packages cannot be had here and now."""


def call(*command: str, folder: Path | None = None) -> str:
    """Runs `command` and returns what it printed; one that fails or hangs means that MySQL is unavailable."""
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


def needed_packages(depends: str) -> list[str]:
    """`PACKAGE` and every library below it, from what `apt-cache depends --recurse` printed.

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
    found_now = [PACKAGE]
    while found_now:
        name = found_now.pop()
        if name not in needed:
            needed.append(name)
            found_now += direct.get(name, [])
    return needed


def download(packages: Path, work: Path) -> None:
    """Downloads MySQL and its libraries as .deb files into `packages`."""
    options = apt_options(work)
    call("apt-get", *options, "update")
    others = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    only_depends = [f"--no-{relation}" for relation in others]
    depends = call("apt-cache", *options, "depends", "--recurse", *only_depends, PACKAGE)
    packages.mkdir()
    call("apt-get", *options, "download", *needed_packages(depends), folder=packages)


def unpack(packages: Path, folder: Path) -> None:
    """Unpacks the .deb files into `folder`/root and writes the launcher beside it."""
    folder.mkdir()
    for package in sorted(packages.glob("*.deb")):
        call("dpkg-deb", "-x", str(package), str(folder / "root"))
    usr = folder / "root" / "usr"
    loaders = sorted(usr.glob("lib*/ld-linux*.so.*"))
    libraries = sorted(usr.glob("lib/*-linux-gnu*"))
    if not loaders or not libraries:
        raise Unavailable("the packages hold no dynamic loader where it is expected")
    launcher = folder / "mysqld"
    launcher.write_text(
        LAUNCHER.format(loader=loaders[0].relative_to(usr), libraries=libraries[0].relative_to(usr))
    )
    launcher.chmod(0o755)


def install(folder: Path) -> str:
    """Makes `folder/mysqld` exist, downloading only when it does not. Returns the server's version line."""
    if not (folder / "mysqld").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="mysql9-", dir=folder.parent) as temporary:
            work = Path(temporary)
            download(work / "packages", work)
            unpack(work / "packages", work / "new")
            call(str(work / "new" / "mysqld"), "--version")
            # Last, and in one step: a folder that exists is whole.
            shutil.rmtree(folder, ignore_errors=True)
            (work / "new").rename(folder)
    return call(str(folder / "mysqld"), "--version").strip()


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / ".cache" / "mysql9"
    try:
        version = install(folder)
    except Unavailable as reason:
        print(f"MySQL 9 cannot be had at the moment: {reason}", file=sys.stderr)
        return os.EX_TEMPFAIL
    print(f"MySQL 9 is in {folder}: {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
