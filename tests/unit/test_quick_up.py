"""What `up` makes of a daemon's word."""

import errno

import pytest

from wiresnake.errors import HostError
from wiresnake.lifecycle import up
from wiresnake.uapi.snapshot import InterfaceState
from wiresnake.uapi.state import Report
from wiresnake.uapi.vocabulary import DeviceReport


@pytest.mark.parametrize(
    ("number", "port", "says"),
    [
        (errno.EADDRINUSE, 51820, "UDP port 51820 is in use: choose another ListenPort"),
        (errno.EPERM, 51820, "cannot open UDP port 51820: Operation not permitted"),
        (errno.EMFILE, 0, "cannot open a UDP port: Too many open files"),
        (0, 51820, "has not opened UDP port 51820 within a second"),
    ],
)
def test_up_knows_why_there_is_no_socket(
    monkeypatch: pytest.MonkeyPatch, number: int, port: int, says: str
) -> None:
    report = Report(DeviceReport(up=True, bind_error=number), {})
    monkeypatch.setattr(up, "read_report", lambda *_: report)
    monkeypatch.setattr(up, "_PATIENCE", 0.01)
    with pytest.raises(HostError, match=says) as caught:
        up._await_socket(InterfaceState("wg0", "user", None, None, port, 0, ()))
    assert caught.value.errno == (number or errno.ETIMEDOUT)


@pytest.mark.parametrize("report", [None, Report(DeviceReport(up=True, bound=True), {})])
def test_up_goes_on_with_a_socket_and_where_nobody_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, report: Report | None
) -> None:
    monkeypatch.setattr(up, "read_report", lambda *_: report)
    up._await_socket(InterfaceState("wg0", "user", None, None, 51820, 0, ()))
