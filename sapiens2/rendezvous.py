"""Where the ranks of a training meet: a store on the address of its node, where torch would listen on every one.

Whoever reaches that store can write into it, and ranks unpickle what they find there.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

_OPEN: list[Any] = []  # stores live as long as their process; torch finds them by port


def serve(address: str) -> tuple[str, int]:
    """Open the store in the process of rank 0, on `address` alone; (address, port) for every rank.

    torch.distributed's own rendezvous at that port, in this process, takes the open store instead of a new one.
    """
    from torch.distributed import TCPStore

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family)
    port: int = listener.getsockname()[1]
    file = listener.detach()
    _OPEN.append(TCPStore(address, port, None, True, multi_tenant=True, master_listen_fd=file, wait_for_workers=False))
    return address, port


def keep_to_loopback(address: str) -> None:
    """On a node that is reached over loopback only, have gloo and NCCL use that interface too."""
    if address.startswith("127.") and Path("/sys/class/net/lo").is_dir():
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
