"""The store that ranks meet at is open to its own address alone, and is the one that torch uses."""

import subprocess
import sys

MEET = """
import os, psutil, torch, torch.distributed as dist
from sapiens2 import rendezvous
address, port = rendezvous.serve("127.0.0.1")
rendezvous.keep_to_loopback(address)
os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
dist.init_process_group("gloo", init_method="env://", rank=0, world_size=1)
total = torch.ones(1)
dist.all_reduce(total)
sockets = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"]
assert port in [each.port for each in sockets]
print(total.item(), *sorted({each.ip for each in sockets}))
dist.destroy_process_group()
"""


def test_torch_meets_at_the_store_that_is_open():
    done = subprocess.run([sys.executable, "-c", MEET], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1.0", "127.0.0.1"], done.stderr[-2000:]
