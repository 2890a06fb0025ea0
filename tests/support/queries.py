"""The queries of the dashboards, as Prometheus gets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.samples import ROOT

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard without its rows."""
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def dashboard_queries(interval: str = "1m", service: str = ".*") -> Iterator[tuple[str, str]]:
    """Each query with the dashboard and the panel that it stands in, after Grafana has filled in its variables."""
    for file in DASHBOARDS:
        board = json.loads(file.read_text(encoding="utf-8"))
        for panel in panels(board):
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", interval).replace("$service", service)
                yield f"{file.stem}: {panel['title']}", query
