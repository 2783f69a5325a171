"""Addresses by which a fetcher is led to where it must not go, and stand-ins that tell where it went without going."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from curation.images.fetch import BlockedAddress, public_socket

NOT_FOR_US = [
    "",
    "file:///etc/passwd",
    "ftp://a/b",
    "gopher://a",
    "//a/b.jpg",
    "data:image/png;base64,AA",
    "javascript:alert(1)",
    "http://",
    "http://user:pw@a.example/",
    "http://[::1",
    "http://a.example:99999/",
]
FORBIDDEN = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.5.5", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.170.2", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1", "::1",
    "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "fe80::1%eth0",
]  # fmt: skip
SPELLINGS = ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.1", "localhost", "①②⑦.⓪.⓪.①"]


class Recorder:
    """Stands where sockets are made: notes the address, lets the real check judge, and never connects."""

    def __init__(self) -> None:
        self.judged: list[str] = []
        self.passed: list[str] = []

    def __call__(self, address: Any) -> socket.socket:
        target = str(address[4][0])
        self.judged.append(target)
        with contextlib.suppress(BlockedAddress):
            public_socket(address).close()
            self.passed.append(target)
        raise BlockedAddress(target)


class Names(AbstractResolver):
    """Answers every name with addresses of our choosing, one list after the other (a rebinding name server)."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None: ...
