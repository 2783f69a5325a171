"""Which network addresses a fetch may reach: the public internet, and nothing else.

The check is made on the address that a socket is about to connect to, so it holds for literals in any spelling, for
names, for redirects, and for names that change their answer between two look-ups.
"""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Beyond what `is_global` says: tunnels that carry any IPv4 address inside, retired site-local space, and cloud
# metadata services that sit on public-looking addresses.
_FORBIDDEN = tuple(
    ipaddress.ip_network(block)
    for block in (
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "::/96",  # IPv4-compatible, retired
        "fec0::/10",  # site-local, retired
        "100.64.0.0/10",  # shared address space; Alibaba's metadata service
        "168.63.129.16/32",  # Azure's platform service
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays
    )
)


def is_public(address: str) -> bool:
    """Whether a numeric address is on the public internet; False for anything that is no numeric address."""
    try:
        ip: _Address = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == block.version and ip in block for block in _FORBIDDEN):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local)
