"""``make audit``: known vulnerabilities of what is installed in a virtual environment, by pip-audit.

pip-audit stands in an environment of its own, so that its dependencies are nobody else's. Exit status: 0 nothing known
that has a fix, or the database cannot be reached, which is said loudly; 1 a vulnerability that an upgrade would fix;
2 the audit itself failed. ``deploy/setup/audit-ignore.txt`` lists exceptions: an ID and the reason on a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

IGNORED: Final = Path(__file__).with_name("audit-ignore.txt")
TOOL: Final = "pip-audit>=2.7"
#: A release whose vulnerabilities are known for good: a database that tells of none is not one.
PROBE: Final = "https://pypi.org/pypi/requests/2.5.0/json"
_PROBE_S: Final = 10.0


def main(environment: Path) -> int:
    """Audit the packages installed in that virtual environment."""
    if (obstacle := unreachable()) is not None:
        return not_run(f"the vulnerability database cannot be reached ({obstacle})")
    try:
        ignored = exceptions(IGNORED.read_text(encoding="utf-8"))
    except ValueError as error:
        print(f"audit: {IGNORED}: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = audit(environment, Path(folder))
        except subprocess.CalledProcessError as error:
            return not_run(f"pip-audit cannot be installed or asked: {error}")
    return told(report, ignored)


def unreachable() -> str | None:
    """Why the database cannot be asked; None where it can."""
    try:
        with urllib.request.urlopen(PROBE, timeout=_PROBE_S) as answer:
            known = json.load(answer).get("vulnerabilities")
    except (OSError, ValueError) as error:
        return str(error)
    return None if known else "it tells of no vulnerability where there are some"


def exceptions(text: str) -> dict[str, str]:
    """Reasons by ID. Raises ValueError for a line without a reason."""
    found = {}
    for line in text.splitlines():
        identifier, _, reason = line.partition("#")[0].strip().partition(" ")
        if identifier and not reason.strip():
            raise ValueError(f"{identifier} has no reason")
        if identifier:
            found[identifier] = reason.strip()
    return found


def audit(environment: Path, folder: Path) -> dict[str, Any]:
    """pip-audit's report. Raises CalledProcessError where there is none."""
    tool, asked, answer = folder / "tool", folder / "installed.txt", folder / "report.json"
    frozen = [str(environment / "bin" / "python"), "-m", "pip", "freeze", "--exclude-editable", "--local"]
    asked.write_bytes(subprocess.run(frozen, check=True, stdout=subprocess.PIPE).stdout)
    subprocess.run([sys.executable, "-m", "venv", str(tool)], check=True)
    subprocess.run([str(tool / "bin" / "pip"), "install", "--quiet", TOOL], check=True)
    command = [str(tool / "bin" / "pip-audit"), "--requirement", str(asked), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "--format", "json", "--output", str(answer)], check=False)
    if not answer.exists():
        raise subprocess.CalledProcessError(done.returncode, command[0])
    report: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return report


def told(report: Mapping[str, Any], ignored: Mapping[str, str]) -> int:
    """Print what the report says; returns the exit status."""
    serious = 0
    unknown = [one["name"] for one in report["dependencies"] if "skip_reason" in one]
    for package in report["dependencies"]:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            reason = next((ignored[name] for name in sorted(names) if name in ignored), None)
            fixed = ", ".join(found.get("fix_versions", ()))
            serious += bool(fixed) and reason is None
            verdict = f"accepted: {reason}" if reason else f"fixed in {fixed}" if fixed else "no fix yet"
            print(f"audit: {package['name']} {package['version']}: {found['id']} ({verdict})")
    if unknown:
        print(f"audit: NOT AUDITED, the database does not know them: {', '.join(unknown)}", file=sys.stderr)
    if len(unknown) == len(report["dependencies"]):
        return not_run("the database knows none of the packages")
    print(f"audit: {len(report['dependencies']) - len(unknown)} packages, {serious} vulnerabilities that have a fix")
    return 1 if serious else 0


def not_run(reason: str) -> int:
    """Say so where nobody overlooks it. No network is no fault of the code."""
    line = "!" * 100
    print(f"{line}\nAUDIT NOT RUN: {reason}\n{line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
