"""A Ceph object gateway on loopback, from Debian's packages: a monitor, a store in memory, a manager, a gateway."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager

NEEDS = ("ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin", "ceph", "monmaptool")
TRIES = 4
KEYS = ("an-access-key", "a-secret-key-of-this-test")

CONF = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket = {folder}/$cluster-$name.$pid.asok
log file = {folder}/$name.log
crash dir = {folder}/crash
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
rgw data = {folder}/rgw
mon data avail crit = 0
mon data avail warn = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon pg warn min per osd = 0
mon max pg per osd = 1000
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd memory target = 939524096
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw enable usage log = false
rgw enable ops log = false
"""


def missing():
    """The programs that are not installed."""
    return [name for name in NEEDS if not shutil.which(name)]


def _free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def gateway(folder):
    """(URL, access key, secret) of a gateway whose files lie in `folder`; ends with the block.

    Begun anew when a daemon ends early: on a busy machine the monitor may refuse a store as unknown.
    """
    with ExitStack() as stack:
        for attempt in range(TRIES):
            own = folder / str(attempt)
            own.mkdir()
            try:
                told = stack.enter_context(_started(own))
                break
            except AssertionError:
                if attempt == TRIES - 1:
                    raise
        yield told


@contextmanager
def _started(folder):
    mon, port = _free_ports(2)
    conf = folder / "ceph.conf"
    conf.write_text(CONF.format(fsid=uuid.uuid4(), mon=mon, gateway=port, folder=folder))
    for name in ("mon", "mgr", "osd", "rgw", "crash"):
        (folder / name).mkdir()
    daemons = []

    def call(*words, patience_s=0):
        deadline = time.monotonic() + patience_s
        while True:
            done = subprocess.run([*map(str, words), "-c", str(conf)], capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{words}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
            time.sleep(0.5)

    def daemon(*words):
        log = (folder / f"{words[0]}.out").open("wb")
        daemons.append(subprocess.Popen([*words, "-f", "-c", str(conf)], stdout=log, stderr=subprocess.STDOUT))

    try:
        with conf.open() as text:
            fsid = next(line.split("=")[1].strip() for line in text if line.startswith("fsid"))
        monmap = folder / "monmap"
        call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon}]", monmap)
        call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        daemon("ceph-mon", "-i", "a")
        daemon("ceph-mgr", "-i", "x")
        identity = str(uuid.uuid4())
        call("ceph", "osd", "new", identity, patience_s=60)
        call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        daemon("ceph-osd", "-i", "0")
        daemon("radosgw", "-n", "client.rgw")
        _await(f"http://127.0.0.1:{port}/", daemons, folder)
        keys = ("--access-key", KEYS[0], "--secret-key", KEYS[1])
        call("radosgw-admin", "user", "create", "--uid=test", "--display-name=test", *keys)
        yield f"http://127.0.0.1:{port}", *KEYS
    finally:
        for process in reversed(daemons):
            process.kill()
            process.wait()


def _await(url, daemons, folder):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        dead = [d.args[0] for d in daemons if d.poll() is not None]
        assert not dead, f"{dead} ended: {''.join(p.read_text()[-800:] for p in folder.glob('*.out'))}"
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the gateway did not come up: " + "".join(p.read_text()[-800:] for p in folder.glob("*.out")))
