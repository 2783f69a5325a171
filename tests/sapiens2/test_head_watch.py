"""A head of Ray that is gone is told once; one that answers, or comes back soon, is not."""

from __future__ import annotations

import socket
import time

import pytest

from sapiens2 import head_watch
from sapiens2.head_watch import told_when_lost


def test_a_head_that_is_gone_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "EVERY_S", 0.05)
    head = socket.create_server(("127.0.0.1", 0), backlog=64)
    address = f"127.0.0.1:{head.getsockname()[1]}"
    with told_when_lost(address):
        time.sleep(0.5)
        assert capsys.readouterr().err == ""
        head.close()
        told, deadline = "", time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
            told = capsys.readouterr().err
        time.sleep(0.3)
    told += capsys.readouterr().err
    assert told.count(f"error: Ray's head at {address} is gone") == 1 and "the same command goes on" in told


def test_nothing_is_told_after_the_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "EVERY_S", 0.05)
    with told_when_lost("127.0.0.1:9"):
        pass
    time.sleep(0.4)
    assert capsys.readouterr().err == ""
