"""An embedded Ray is reachable from this machine alone, found again by its address, and gone afterwards."""

import subprocess
import sys
import textwrap

LOOPBACK = ("127.", "::1", "::ffff:127.")


def test_every_socket_listens_on_loopback_and_nothing_is_left_behind(tmp_path):
    """In a process of its own: what Ray trusts is settled when it is imported."""
    script = tmp_path / "session.py"
    script.write_text(
        textwrap.dedent(
            """
            import os
            import psutil
            from components.ray_session import ray_session

            with ray_session() as address:
                assert os.environ["RAY_ADDRESS"] == address and os.environ["RAY_AUTH_MODE"] == "token"
                family = psutil.Process().children(recursive=True)
                assert len(family) > 3
                sockets = [c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == "LISTEN"]
                print("listens", " ".join(sorted(set(sockets))))
                with ray_session() as again:
                    assert again == address
            assert "RAY_ADDRESS" not in os.environ
            psutil.wait_procs(family, timeout=20)
            print("left", sum(p.is_running() and p.status() != "zombie" for p in family))
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    listens, left = done.stdout.strip().splitlines()[-2:]
    addresses = listens.split()[1:]
    assert addresses and all(address.startswith(LOOPBACK) for address in addresses), listens
    assert left == "left 0"
