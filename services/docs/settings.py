"""docs/settings.md: every setting by topic, with the services that use it.

Who uses a setting is read from the code: the modules that a service imports, directly or through others, and the
attributes of the settings that they read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from services.docs.tables import table
from services.topology import SERVICE_NAMES, TOPOLOGY
from shared.runtime.traces import VARIABLES
from shared.settings import DEFAULT_SECRETS_DIR, SECRETS_DIR_VARIABLE, Settings, shown_default

ROOT: Final = Path(__file__).resolve().parents[2]

#: A section begins with the setting of this name and goes on to the next section, in the order of the settings.
SECTIONS: Final[dict[str, str]] = {
    "kafka_bootstrap_servers": "Kafka",
    "redis_url": "Redis and what it keeps",
    "blob_url": "Blobs",
    "max_unfinished": "Ingestion: fetching and decoding",
    "spotify_client_id": "Spotify",
    "models_dir": "Models and the vote",
    "gateway_host": "The gateway",
    "worker_threads": "Workers: batches, retries, dead letters",
    "health_host": "Health and logs",
}
#: Settings that ``Settings`` itself puts into another one, by the beginning of their names.
_PART_OF: Final = {"redis_ssl_": "redis_url"}
#: Where the gateway begins.
_GATEWAY: Final = ["services.gateway.app", "services.cli.commands.serve"]
#: What every worker process runs beside its services.
_PROCESS: Final = ("shared.runtime.process", "services.cli.commands.worker", "services.cli.main")


def settings() -> str:
    """The page."""
    users = used_by()
    parts = [
        "# Settings\n\nEnvironment variables, made from `shared/settings.py` by `make docs`. Each may stand in a file"
        f" instead, for secrets: in the folder `{DEFAULT_SECRETS_DIR}`, or another that `{SECRETS_DIR_VARIABLE}` names,"
        " under the variable's name in lower case, e.g. `tonestream_kafka_sasl_password`. A variable that is set goes"
        " before the file. `tonestream settings` prints them all.\n\nThe last column names the services that use a"
        " setting, as the code reads it. `tonestream classify` runs all services in one process."
    ]
    for title, names in _sections():
        rows = [
            (
                f"`TONESTREAM_{name.upper()}`",
                shown_default(name),
                Settings.model_fields[name].description or "",
                _shown(users.get(name, ())),
            )
            for name in names
        ]
        parts.append(f"## {title}\n\n{table(('variable', 'default', 'meaning', 'used by'), rows)}")
    parts.append(
        "## Traces\n\nOpenTelemetry's own variables, for every process; see [Operations](operations.md#traces). They"
        ' need `pip install "tonestream[telemetry]"`, which the images have.\n\n'
        + table(("variable", "meaning"), [(f"`{name}`", meaning) for name, meaning in VARIABLES.items()])
    )
    return "\n\n".join(parts) + "\n"


def used_by() -> dict[str, tuple[str, ...]]:
    """The services that use each setting, by its name, and the gateway; without those that none of them uses."""
    users: dict[str, tuple[str, ...]] = {}
    entrances = {
        service: [*(node.service.split(":")[0] for node in TOPOLOGY if node.stage.value == service), *_PROCESS]
        for service in SERVICE_NAMES
    }
    for user, modules in (entrances | {"gateway": _GATEWAY}).items():
        for name in sorted(set(_read_settings(_reached(modules)))):
            users[name] = (*users.get(name, ()), user)
    for start, whole in _PART_OF.items():
        users |= {name: users[whole] for name in Settings.model_fields if name.startswith(start)}
    return users


def _sections() -> Iterator[tuple[str, list[str]]]:
    title, names = "", list[str]()
    for name in Settings.model_fields:
        if name in SECTIONS:
            if names:
                yield title, names
            title, names = SECTIONS[name], []
        names.append(name)
    yield title, names


def _shown(services: tuple[str, ...]) -> str:
    if set(SERVICE_NAMES) <= set(services):
        return ", ".join(["every service", *(name for name in services if name not in SERVICE_NAMES)])
    return ", ".join(services)


def _reached(entrances: Iterable[str]) -> set[str]:
    """Our modules that these import, directly or through others."""
    reached: set[str] = set()
    waiting = list(entrances)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += _imports(module)
    return reached


def _read_settings(modules: Iterable[str]) -> Iterator[str]:
    """Names of the settings that these modules read from an object called ``settings`` or ``_settings``."""
    properties = _properties()
    for module in modules:
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Attribute) and _name(node.value).endswith("settings"):
                if node.attr in Settings.model_fields:
                    yield node.attr
                yield from properties.get(node.attr, ())


@cache
def _properties() -> dict[str, set[str]]:
    """The settings that each property and method of ``Settings`` reads. ``secrets`` only lists what no log may show."""
    of_settings = next(
        node for node in _tree("shared.settings").body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    return {
        part.name: {
            node.attr
            for node in ast.walk(part)
            if isinstance(node, ast.Attribute) and _name(node.value) == "self" and node.attr in Settings.model_fields
        }
        for part in of_settings.body
        if isinstance(part, ast.FunctionDef) and part.name != "secrets"
    }


def _name(node: ast.expr) -> str:
    """The last name of ``settings`` or ``self._settings``; empty for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


@cache
def _imports(module: str) -> frozenset[str]:
    found = set()
    for node in _run_time_nodes(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return frozenset(name for name in found if name.split(".")[0] in ("shared", "services") and _file(name))


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _run_time_nodes(node)


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None, module
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
