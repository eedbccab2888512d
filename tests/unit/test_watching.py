"""Events derived from looks at a device: pure, with a clock of the test's."""

from wiresnake.devices.poller import Watcher
from wiresnake.protocol.constants import SECOND
from wiresnake.uapi.events import Reported, details, kind_of
from wiresnake.uapi.snapshot import InterfaceState, PeerState

START = 1_800_000_000 * SECOND
HOME, ROAD = "192.0.2.1:51820", "198.51.100.9:4711"


class Watched:
    """A device with one peer, looked at by a watcher whenever `look` says how it is."""

    def __init__(self) -> None:
        self.watcher = Watcher("wg0")
        self.now = 0
        self.peer = PeerState("KEY=", None, HOME, (), (0, 0), 0, 0, 0)

    def shaken(self) -> tuple[int, int]:
        return divmod(START + self.now, SECOND)

    def look(self, *peers: PeerState, up: bool = True, after: float = 1) -> list[str]:
        self.now += int(after * SECOND)
        state = InterfaceState("wg0", "kernel", None, None, 51820, 0, peers or (self.peer,))
        return self.said(self.watcher.look(state, up, START + self.now, self.now))

    def said(self, events: list[Reported]) -> list[str]:
        return [
            " ".join([kind_of(one.event), *(f"{key}={value}" for key, value in self.details(one))])
            for one in events
        ]

    def details(self, event: Reported) -> list[tuple[str, object]]:
        """All but the endpoint where it says nothing new."""
        told = details(event.event).items()
        return [one for one in told if kind_of(event.event) != "disconnected" or one[0] == "reason"]

    def shake(self, after: float = 1) -> list[str]:
        self.now += int(after * SECOND)
        self.peer = self.peer._replace(
            latest_handshake=self.shaken(), received=self.peer.received + 92
        )
        return self.look(after=0)


def test_a_peer_connects_rekeys_and_expires() -> None:
    watched = Watched()
    assert watched.look() == []
    assert watched.shake() == [f"handshake endpoint={HOME}", f"connected endpoint={HOME}"]
    assert watched.look() == []
    assert watched.shake(120) == [f"rekey endpoint={HOME}"]
    assert watched.look(after=539.5) == []
    assert watched.look(after=1) == ["disconnected reason=expired"]
    assert watched.look(after=60) == []
    assert watched.shake() == [f"handshake endpoint={HOME}", f"connected endpoint={HOME}"]


def test_what_was_connected_before_the_first_look_is_no_event() -> None:
    watched = Watched()
    watched.peer = watched.peer._replace(latest_handshake=watched.shaken())
    assert watched.look(after=100) == []
    assert [peer.public_key for peer in watched.watcher.connected()] == ["KEY="]
    assert watched.look(after=441) == ["disconnected reason=expired"]


def test_what_had_expired_before_the_first_look_is_not_connected() -> None:
    watched = Watched()
    watched.peer = watched.peer._replace(latest_handshake=watched.shaken())
    assert watched.look(after=600) == []
    assert watched.watcher.connected() == []
    assert watched.look(after=600) == []


def test_a_peer_that_does_not_answer_is_told_of_once_a_silence() -> None:
    watched = Watched()
    watched.look()
    told = []
    for _ in range(30):
        watched.peer = watched.peer._replace(sent=watched.peer.sent + 148)
        told += watched.look()
    assert told == [f"unreachable endpoint={HOME} reason=no_answer"]
    watched.shake()
    watched.peer = watched.peer._replace(sent=watched.peer.sent + 148)
    told = [said for _ in range(20) for said in watched.look()]
    assert told == [f"unreachable endpoint={HOME} reason=no_answer"]
    assert watched.look(after=180) == ["disconnected reason=no_answer"]


def test_a_peer_roams() -> None:
    watched = Watched()
    watched.look()
    watched.shake()
    watched.peer = watched.peer._replace(endpoint=ROAD)
    assert watched.look() == [f"roamed endpoint={ROAD} old_endpoint={HOME}"]
    assert watched.look() == []


def test_peers_come_and_go() -> None:
    watched = Watched()
    watched.look()
    other = PeerState("OTHER=", None, ROAD, (), watched.shaken(), 0, 0, 0)
    watched.shake()
    assert watched.look(watched.peer, other) == [
        f"handshake endpoint={ROAD}",
        f"connected endpoint={ROAD}",
    ]
    assert watched.look(watched.peer) == ["disconnected reason=removed"]
    assert watched.look(watched.peer._replace(public_key="NEW=", latest_handshake=(0, 0))) == [
        "disconnected reason=removed"
    ]


def test_an_interface_goes_down_and_away() -> None:
    watched = Watched()
    watched.look()
    watched.shake()
    assert watched.look(up=False) == ["disconnected reason=down"]
    assert watched.look(up=True) == [], "the old handshake makes no new session"
    watched.shake()
    gone = watched.watcher.look(None, False, START + watched.now, watched.now)
    assert watched.said(gone) == ["disconnected reason=down"]


def test_a_clock_that_is_set_back_ends_no_session() -> None:
    watched = Watched()
    watched.look()
    watched.shake()
    state = InterfaceState("wg0", "kernel", None, None, 51820, 0, (watched.peer,))
    boot = watched.now + 100 * SECOND
    assert watched.watcher.look(state, True, START + 10_000 * SECOND, boot) == []
    assert watched.watcher.look(state, True, START - 10_000 * SECOND, boot) == []


def test_nobody_answers_keepalives() -> None:
    watched = Watched()
    watched.look()
    watched.shake()
    told = []
    for _ in range(7):
        watched.peer = watched.peer._replace(sent=watched.peer.sent + 32)
        told += watched.look(after=25)
    assert told == []
