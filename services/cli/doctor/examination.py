"""All checks, one after the other, each within its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from services.cli.doctor import blobs, machine, networks, programs, servers
from services.cli.doctor.finding import Check, Finding, fail
from shared.settings import Settings
from shared.system.limited_calls import CallTimeoutError, LimitedCalls

#: What every installation needs.
LOCAL: Final = (
    Check("ffmpeg", programs.ffmpeg, limit_s=30.0),
    Check("models", networks.models, limit_s=60.0),
    Check("engine", networks.engine, limit_s=120.0),  # TensorFlow takes its time
    Check("temporary folder", machine.temporary_folder),
    Check("data folder", machine.data_folder),
    Check("open files", machine.open_files),
    Check("inotify", machine.notifications),
)
KAFKA: Final = Check("kafka", servers.kafka, limit_s=30.0)
REDIS: Final = Check("redis", servers.redis, limit_s=20.0)
BLOBS: Final = Check("blob store", blobs.blob_store, limit_s=90.0)


def checks(settings: Settings, cluster: bool) -> Sequence[Check]:
    """The checks for this installation: servers only if they are configured, or it is a ``cluster``."""
    given = settings.model_fields_set
    wanted = list(LOCAL)
    wanted += [KAFKA] if cluster or "kafka_bootstrap_servers" in given else []
    in_memory = settings.redis_url.get_secret_value().startswith("memory:")
    wanted += [REDIS] if cluster or ("redis_url" in given and not in_memory) else []
    wanted += [BLOBS] if cluster or "blob_url" in given else []
    return wanted


def examine(checks: Sequence[Check], settings: Settings) -> Iterator[Finding]:
    """What the checks find. Nothing that they meet is raised, and none takes longer than its time."""
    calls = LimitedCalls("doctor", len(checks) or 1)
    for check in checks:
        look = check.look
        try:
            yield from calls.call(lambda look=look: list(look(settings)), check.limit_s)  # type: ignore[misc]
        except CallTimeoutError:
            yield fail(check.subject, f"no answer within {check.limit_s:.0f} s", "something hangs; look at it by hand")
        except Exception as error:
            yield fail(check.subject, f"cannot be checked: {error}", "mend what the message says")
