"""Writes the outcomes as text, JSON, JUnit and Markdown."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from xml.etree import ElementTree

from .items import Item
from .machine import Lateness
from .run import Outcome
from .verdict import Check, Result

WORST = [
    Result.ERROR,
    Result.FAILED,
    Result.DIFFERS,
    Result.INCONCLUSIVE,
    Result.PASS,
    Result.NOT_APPLICABLE,
]
SHORT = {Result.NOT_APPLICABLE: "n/a"}

INTRODUCTION = """\
# WireGuard implementations, item by item

Made by `wiresnake-conformance` on {date} ({machine}): each item of its list that can be seen from
outside, for each implementation. *differs*: it behaves differently from the item; *failed*: it
died, hung or could not be configured; *n/a*: the item does not apply to it or cannot be seen on it;
*inconclusive*: the machine was too slow to tell, at every try. Below, each difference is shown with
what was sent (`->`) and what came back (`<-`), and the seconds since the start. The reference is
the Linux kernel; `wiresnake-conformance --list` shows the source of each item.
"""


@dataclass(frozen=True)
class Report:
    """Outcomes, and the facts that a reader needs to judge them."""

    outcomes: Sequence[Outcome]
    checks: Sequence[Check]
    items: dict[int, Item]
    versions: dict[str, str]
    """The versions of the implementations, in the order of the columns."""
    date: str
    machine: str
    lateness: Lateness = field(default_factory=Lateness)
    """The machine's lateness over the whole run."""

    def beside(self, written: str) -> "Report":
        """Adds the columns of another run, from its JSON. ValueError if a label is in both runs."""
        other = json.loads(written)
        if twice := self.versions.keys() & other["implementations"].keys():
            raise ValueError(f"{', '.join(twice)} in both runs")
        chosen = {(check.number, check.name) for check in self.checks}
        outcomes = [
            Outcome(label, item["number"], **outcome | {"result": Result(outcome["result"])})
            for item in other["items"]
            for label, found in item["results"].items()
            for outcome in found["checks"]
            if (item["number"], outcome["check"]) in chosen
        ]
        return replace(
            self,
            outcomes=[*self.outcomes, *outcomes],
            versions=self.versions | other["implementations"],
        )

    @property
    def numbers(self) -> list[int]:
        return sorted({check.number for check in self.checks})

    def of(self, number: int, label: str) -> list[Outcome]:
        return [o for o in self.outcomes if (o.number, o.subject) == (number, label)]

    def result(self, number: int, label: str) -> Result:
        """Returns the result of an item: that of its worst check."""
        found = {outcome.result for outcome in self.of(number, label)}
        return next((result for result in WORST if result in found), Result.NOT_APPLICABLE)

    def differences(self) -> Iterable[Outcome]:
        bad = (Result.DIFFERS, Result.FAILED, Result.ERROR, Result.INCONCLUSIVE)
        found = [outcome for outcome in self.outcomes if outcome.result in bad]
        order = list(self.versions)
        return sorted(found, key=lambda o: (order.index(o.subject), o.number, o.check))

    def text(self) -> str:
        labels = list(self.versions)
        width = max(15, *(len(label) + 2 for label in labels))
        lines = [f"{'item':<72}" + "".join(f"{label:<{width}}" for label in labels)]
        for number in self.numbers:
            cells = [SHORT.get(result := self.result(number, label), result) for label in labels]
            title = self.items[number].title
            lines.append(
                f"{number:3} {title[:66]:<68}" + "".join(f"{cell:<{width}}" for cell in cells)
            )
        lines.append("")
        lines += [self._sum(label) for label in labels]
        lines += ["", *self._slowness()]
        for outcome in self.differences():
            lines += ["", f"{outcome.subject}, item {outcome.number}, {outcome.check}:"]
            lines += [f"  {outcome.result}: {outcome.reason}"]
            lines += [f"    {line}" for line in outcome.evidence]
        return "\n".join(lines)

    def _slowness(self) -> list[str]:
        """Describes how the machine's lateness affected the results."""
        worst, typical = self.lateness.worst, self.lateness.typical
        lines = [f"The machine was {worst:.3f} s late at worst, {typical:.3f} s in most seconds."]
        for outcome in self.outcomes:
            if outcome.notes:
                said = f"{outcome.subject}, item {outcome.number}, {outcome.check}: "
                lines.append(f"  {said}{outcome.result}. {'; '.join(outcome.notes)}")
        return lines

    def _sum(self, label: str) -> str:
        counts = [(r, sum(self.result(n, label) == r for n in self.numbers)) for r in Result]
        said = ", ".join(f"{count} {result}" for result, count in counts if count)
        version = self.versions[label]
        return f"{label}{f' ({version})' if version else ''}: {said}"

    def json(self) -> str:
        return json.dumps(
            {
                "date": self.date,
                "machine": self.machine,
                "lateness": asdict(self.lateness),
                "implementations": self.versions,
                "items": [
                    asdict(self.items[number])
                    | {
                        "results": {
                            label: {
                                "result": self.result(number, label),
                                "checks": [
                                    {
                                        "check": outcome.check,
                                        "result": outcome.result,
                                        "reason": outcome.reason,
                                        "seconds": outcome.seconds,
                                        "evidence": outcome.evidence,
                                        "late": round(outcome.late, 4),
                                        "notes": outcome.notes,
                                    }
                                    for outcome in self.of(number, label)
                                ],
                            }
                            for label in self.versions
                        }
                    }
                    for number in self.numbers
                ],
            },
            indent=1,
        )

    def junit(self) -> str:
        suites = ElementTree.Element("testsuites", name="wiresnake-conformance")
        for label in self.versions:
            found = [outcome for outcome in self.outcomes if outcome.subject == label]
            suite = ElementTree.SubElement(
                suites,
                "testsuite",
                name=label,
                tests=str(len(found)),
                failures=str(sum(o.result in (Result.DIFFERS, Result.FAILED) for o in found)),
                errors=str(sum(o.result == Result.ERROR for o in found)),
                skipped=str(
                    sum(o.result in (Result.NOT_APPLICABLE, Result.INCONCLUSIVE) for o in found)
                ),
            )
            for outcome in found:
                case = ElementTree.SubElement(
                    suite,
                    "testcase",
                    classname=f"item {outcome.number}",
                    name=outcome.check,
                    time=str(outcome.seconds),
                )
                tag = {
                    Result.DIFFERS: "failure",
                    Result.FAILED: "failure",
                    Result.ERROR: "error",
                    Result.NOT_APPLICABLE: "skipped",
                    Result.INCONCLUSIVE: "skipped",
                }.get(outcome.result)
                if tag:
                    child = ElementTree.SubElement(case, tag, message=outcome.reason)
                    child.text = "\n".join(outcome.evidence)
        ElementTree.indent(suites)
        return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"

    def markdown(self) -> str:
        labels = list(self.versions)
        marks = {Result.PASS: "pass", Result.NOT_APPLICABLE: "n/a"}
        lines = [
            INTRODUCTION.format(date=self.date, machine=self.machine),
            *(f"- {self._sum(label)}" for label in labels),
            "",
            "| item | | " + " | ".join(labels) + " |",
            "|---|---|" + "---|" * len(labels),
        ]
        for number in self.numbers:
            results = [self.result(number, label) for label in labels]
            cells = [marks.get(result, f"**{result}**") for result in results]
            title = self.items[number].title.replace("|", "\\|")
            lines.append(f"| {number} | {title} | " + " | ".join(cells) + " |")
        lines += ["", *(f"{line}  " for line in map(str.strip, self._slowness()))]
        lines += ["", "## Differences, with their evidence"]
        for label in labels:
            found = [outcome for outcome in self.differences() if outcome.subject == label]
            lines += ["", f"### {label}", ""]
            lines += ["None."] if not found else []
            for outcome in found:
                title = self.items[outcome.number].title
                source = self.items[outcome.number].source
                lines += [
                    f"**{outcome.number}, {title}** ({source}; `{outcome.check}`)",
                    "",
                    "```",
                    f"{outcome.result}: {outcome.reason}",
                    *outcome.evidence[-12:],
                    "```",
                    "",
                ]
        return "\n".join(lines).rstrip() + "\n"
