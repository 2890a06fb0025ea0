"""Tonestream on a real Kubernetes cluster, by kubectl."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

NAMESPACE: Final = "tonestream"
_COMMAND_S: Final = 120.0
_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class Cluster:
    """What kubectl does in the ``context``. A command that fails is an AssertionError with what it said."""

    def __init__(self, context: str) -> None:
        self._context = context

    def kubectl(self, *arguments: str, given: str | None = None, timeout_s: float = _COMMAND_S) -> str:
        """The output of a command; ``given`` is its input."""
        done = self._run(*arguments, given=given, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command ends with 0."""
        return self._run(*arguments).returncode == 0

    def get(self, *arguments: str) -> dict[str, Any]:
        """A resource, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("-n", NAMESPACE, "get", *arguments, "-o", "json"))
        return found

    def apply(self, folder: Path, *more: str) -> list[str]:
        """Apply what kustomize makes of the folder; the warnings of the server."""
        done = self._run("apply", "--server-side", "--validate=strict", "-k", str(folder), *more)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("Warning")]

    def settled(self, timeout_s: float = 300.0) -> None:
        """Return when every pod that is wanted takes work, and no other is left."""
        end = time.monotonic() + timeout_s
        for one in self.get("deployments,statefulsets")["items"]:
            name = f"{one['kind'].lower()}/{one['metadata']['name']}"
            left = max(1, int(end - time.monotonic()))
            self.kubectl("-n", NAMESPACE, "rollout", "status", name, f"--timeout={left}s", timeout_s=left + 30)
        until(lambda: not self._leaving(), end - time.monotonic(), "the pods of before are gone")

    def replicas(self, name: str) -> int:
        """How many pods a Deployment is to have."""
        return int(self.get(f"deployment/{name}")["spec"].get("replicas", 1))

    def pods(self, *names: str) -> list[str]:
        """The pods of these services that are there."""
        chosen = f"app.kubernetes.io/name in ({','.join(names)})"
        return [one["metadata"]["name"] for one in self.get("pods", "-l", chosen)["items"]]

    def restarts(self) -> dict[str, int]:
        """Containers that were started anew, and how often."""
        statuses = [
            (one["metadata"]["name"], status)
            for one in self.get("pods")["items"]
            for status in one["status"].get("containerStatuses", ())
        ]
        return {name: status["restartCount"] for name, status in statuses if status["restartCount"]}

    def runs(self, pod: str, *command: str) -> bool:
        """Whether a command in a pod ends with 0."""
        return self.succeeds("-n", NAMESPACE, "exec", pod, "--", *command)

    @contextmanager
    def gateway(self) -> Iterator[str]:
        """The address at which the gateway answers on this machine. Ends with the gateway's pod."""
        process = subprocess.Popen(
            ["kubectl", "--context", self._context, "-n", NAMESPACE, "port-forward", "service/gateway", ":80"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            found = _FORWARDED.search(line := process.stdout.readline())
            assert found is not None, line
            address = f"http://127.0.0.1:{found[1]}"
            until(lambda: httpx.get(f"{address}/readyz", timeout=10).is_success, 60.0, "the gateway is ready")
            yield address
        finally:
            process.kill()
            process.wait()

    def _leaving(self) -> list[str]:
        pods = self.get("pods")["items"]
        return [one["metadata"]["name"] for one in pods if "deletionTimestamp" in one["metadata"]]

    def _run(
        self, *arguments: str, given: str | None = None, timeout_s: float = _COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", "--context", self._context, *arguments],
            input=given, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


def until(holds: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until it holds; how long that took in seconds."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(1.0)
    return time.monotonic() - started
