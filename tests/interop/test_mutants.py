"""In a host, too, the daemon that runs is the one with the fault."""

from interop.harness import OURS, MakeHost

from mutants.faults import Edit, Fault
from mutants.trees import Tree

SAYS = "print(f\"wiresnaked {version('wiresnake')}\")"
FAULT = Fault(
    "other-words",
    "the version is a lie",
    (Edit("src/wiresnake/daemon/main.py", SAYS, 'print("a lie")'),),
    ("nothing",),
)


def test_a_daemon_in_a_host_is_that_of_the_copy(make_host: MakeHost) -> None:
    host = make_host()
    with Tree(FAULT.name, FAULT.texts()) as tree:
        assert host.output(tree.daemon, "--version") == "a lie\n"
        as_tests_do = host.run(OURS.program, "--version", env=tree.environment())
        assert as_tests_do.stdout == "a lie\n"
    assert host.output(OURS.program, "--version").startswith("wiresnaked ")
