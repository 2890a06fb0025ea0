"""A real Prometheus over our rules, scraping addresses that a test gives it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.support.processes import NotAvailableError, free_port
from tests.support.queries import RULES

_PATIENCE_S = 60.0


class PrometheusServer:
    """A context manager. ``targets``: the address of each stage, ``host:port``. Raises NotAvailableError."""

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise NotAvailableError("prometheus is not installed (Debian: apt install prometheus)")
        self.url = f"http://127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        scraped = [{"targets": [address], "labels": {"stage": stage}} for stage, address in targets.items()]
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(file) for file in RULES],
                    "scrape_configs": [{"job_name": "tonestream", "static_configs": scraped}],
                }
            )
        )
        self._command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._log = folder / "prometheus.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._ready():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. Raises AssertionError if Prometheus refuses it."""
        return self._answer(f"/api/v1/query?{urlencode({'query': expression})}")["result"]  # type: ignore[no-any-return]

    def rule_faults(self) -> list[str]:
        """The rules that could not be evaluated."""
        groups = self._answer("/api/v1/rules")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]

    def _answer(self, path: str) -> dict[str, Any]:
        with urlopen(self.url + path, timeout=30) as answered:
            document = json.load(answered)
        assert document["status"] == "success", document
        found: dict[str, Any] = document["data"]
        return found

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=1) as answered:
                return bool(answered.status == 200)
        except (URLError, OSError):
            return False
