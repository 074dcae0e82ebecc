"""The results of a check as JUnit XML, which build servers read: a broken rule is a failure, an open one an error."""

import platform
from datetime import UTC, datetime
from xml.etree import ElementTree

from store.text import printable
from workbench.lab.contracts.checking import Check, Result
from workbench.lab.contracts.words import message

_LIMIT = 1000  # characters of a text


def junit(check: Check, properties: dict[str, str]) -> str:
    """Return the document. properties : what the numbers are of, by name.

    Valid for the schemas of windyroad and of Jenkins, which are the ones in use.
    """
    counts = check.counts
    seconds = sum(result.seconds for result in check.results)
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "id": "0",
            "package": "workbench",
            "name": check.contract.name,
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": printable(platform.node()) or "unknown",
            "tests": str(len(check.results)),
            "failures": str(counts["broken"]),
            "errors": str(counts["unmeasured"] + counts["unmatched"]),
            "time": f"{seconds:.3f}",
        },
    )
    listed = ElementTree.SubElement(suite, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(listed, "property", {"name": name, "value": printable(value, _LIMIT)})
    for result in check.results:
        _case(suite, check.contract.name, result)
    for name in ("system-out", "system-err"):
        ElementTree.SubElement(suite, name).text = ""
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, contract: str, result: Result) -> None:
    facts = {"name": result.rule.id, "classname": contract, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", facts)
    if result.verdict != "met":
        words = printable(message(result), _LIMIT)
        kind = "failure" if result.verdict == "broken" else "error"
        ElementTree.SubElement(case, kind, {"type": result.verdict, "message": words}).text = words
