"""A Galera cluster of MariaDB servers on this machine.

A node that joins gets what it lacks from another one. Copying all data takes long and needs more programs, so all nodes
start from copies of one data directory, and lack nothing but the few events since.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.services import MariaDBServer, MissingServer, _pick_port

PROVIDER = "/usr/lib/galera/libgalera_smm.so"  # where Debian has it
STATE = ("galera.cache", "gvwstate.dat")  # of one node alone
# A node that died is noticed within seconds, and none is taken for dead because the machine was busy.
TIMES = {
    "evs.keepalive_period": "PT0.2S",
    "evs.inactive_check_period": "PT0.2S",
    "evs.suspect_timeout": "PT6S",
    "evs.inactive_timeout": "PT12S",
    "evs.install_timeout": "PT6S",
}


class GaleraNode(MariaDBServer):
    """One server. `cluster` says what it joins; while that is empty, it founds a cluster of its own."""

    def __init__(self, name: str) -> None:
        super().__init__("--innodb-autoinc-lock-mode=2", "--binlog-format=ROW")
        self.node_name = name
        self.cluster = ""
        if not Path(PROVIDER).exists():
            raise MissingServer("Galera is not installed: apt-get install galera-4 rsync")
        self.group_port, self._state_port, self._increment_port = _pick_port(), _pick_port(), _pick_port()

    def copy_data(self, other: GaleraNode) -> None:
        """Start from the data of another node, which is stopped."""
        data = self.directory / "data"
        shutil.copytree(other.directory / "data", data, ignore=shutil.ignore_patterns(*STATE))
        data.chmod(0o777)  # rsync, which as root becomes nobody, leaves a note here that nothing is to be copied

    def _command(self) -> Sequence[str]:
        group = f"127.0.0.1:{self.group_port}"
        options = {
            "gmcast.listen_addr": f"tcp://{group}",
            "ist.recv_addr": f"127.0.0.1:{self._increment_port}",
            "gcache.size": "8M",
            "pc.recovery": "false",
            **TIMES,
        }
        return [
            *super()._command(),
            "--wsrep-on=ON",
            f"--wsrep-provider={PROVIDER}",
            "--wsrep-provider-options=" + ";".join(f"{name}={value}" for name, value in options.items()),
            f"--wsrep-cluster-address=gcomm://{self.cluster}",
            f"--wsrep-node-name={self.node_name}",
            f"--wsrep-node-address={group}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{self._state_port}",
        ]

    def _is_ready(self) -> bool:
        return super()._is_ready() and self.is_synced()

    def is_synced(self) -> bool:
        """Whether the node takes statements."""
        return self.sql("SHOW STATUS LIKE 'wsrep_ready'") == [("wsrep_ready", "ON")]


class GaleraCluster:
    """Three nodes, for a `with` block."""

    def __init__(self) -> None:
        self.nodes: list[GaleraNode] = []

    def __enter__(self) -> Self:
        try:
            self.nodes += [GaleraNode(f"node{number}") for number in range(3)]
            first, *others = self.nodes
            first.start()
            first.stop()
            for node in others:
                node.copy_data(first)
            first.start()
            for node in others:
                node.cluster = ",".join(f"127.0.0.1:{other.group_port}" for other in self.nodes)
                node.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.close()

    def url(self, database: str, nodes: Sequence[GaleraNode] | None = None) -> str:
        """`mysql://` with the nodes in the order given, or all in their order."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes or self.nodes)
        return f"mysql://root@{hosts}/{database}"
