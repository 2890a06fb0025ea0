"""The measurement: the whole pipeline on a real Kafka and a real Redis, one worker process a service.

It needs Linux (``/proc``), a Kafka that it starts itself (``TONESTREAM_TEST_KAFKA=java``), ``redis-server`` and a
folder of music. The music is encoded to MP3 in a temporary folder, served over HTTP on the loopback interface, and
submitted as any client would. Each worker has one thread, so a worker is a core.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import redis
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from benchmarks.bench.cluster import BROKER, REDIS, Answer, Cluster
from benchmarks.bench.environment import ROOT, choose_genre_model
from benchmarks.bench.measurement import cpu_s_of
from benchmarks.capacity.costs import BlobCosts, Idle, Measured, RedisCosts, Run, TopicCosts
from shared.audio.decode import find_ffmpeg
from shared.bus.base import Outgoing, Record, TopicSpec
from shared.bus.kafka.bus import KafkaBus
from shared.bus.kafka.clients import KafkaConfig
from shared.contracts.messages import Stage, TrackResult
from shared.contracts.topics import PARTITIONS, Channel
from shared.settings import Settings
from shared.state.keys import Keys
from tests.support.pipeline import Pipeline
from tests.support.web_server import Exchange, WebServer

_MUSIC: Final = frozenset({".flac", ".wav", ".mp3", ".ogg", ".au"})
_CLIP_S: Final = 29.5
_PIECES: Final = 8
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_WAV_HEADER_BYTES: Final = 44
_WAV_BYTES_A_SECOND: Final = 2 * 22050
_INTERNAL: Final = ("__consumer_offsets", "__transaction_state")
_IDLE_S: Final = 20.0
_PROBES: Final = 40
_SAMPLE_S: Final = 1.0
#: On a machine that others keep busy the first lane would give tracks up, and the second would do the work again.
_PATIENT: Final = {"fetch_first_timeout_s": "100", "decode_first_timeout_s": "250"}
#: The packages of an engine. Without TensorFlow's GPU libraries it has another name.
_ENGINES: Final = {"onnx": ["onnxruntime"], "tensorflow": ["onnxruntime", "tensorflow-cpu"]}
#: A value of ``__transaction_state``: version, producer ID, epoch, time limit, and the status, which is 4 once the
#: transaction is committed.
_TRANSACTION: Final = struct.Struct(">hqhib")
_COMMITTED: Final = 4


# Music


def music_files(folder: Path) -> list[Path]:
    """The audio files below ``folder``, in order. Raises FileNotFoundError if there are none."""
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _MUSIC)
    if not found:
        raise FileNotFoundError(f"no music in {folder}")
    return found


def encode(sources: Sequence[Path], target: Path) -> None:
    """The sources one after the other, cut to 29.5 s each, as one MP3: 44.1 kHz, stereo, 192 kb/s."""
    inputs = [argument for source in sources for argument in ("-t", f"{_CLIP_S}", "-i", str(source))]
    parts = "".join(f"[{number}:a]aresample=44100,aformat=channel_layouts=stereo[p{number}];" for number in
                    range(len(sources)))  # fmt: skip
    joined = "".join(f"[p{number}]" for number in range(len(sources)))
    subprocess.run(
        [find_ffmpeg(), "-loglevel", "error", *inputs, "-filter_complex",
         f"{parts}{joined}concat=n={len(sources)}:v=0:a=1", "-b:a", "192k", str(target)],
        check=True,
    )  # fmt: skip


# What processes use


def read_bytes(pid: int) -> int:
    """Bytes that a process read from files so far. Sockets do not count: Python receives from them by another call."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(lines[0].removeprefix("rchar:"))


def memory_bytes(pid: int) -> int:
    """Anonymous pages of a process in memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError("smaps_rollup names no anonymous pages")


def busy_s() -> float:
    """CPU seconds that all processes of the machine have used so far."""
    fields = list(map(int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]))
    user, nice, system, _, _, irq, soft = fields[:7]
    return (user + nice + system + irq + soft) / _TICKS


# The stand


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What everybody has used up to a moment."""

    at: float
    cpu: dict[Stage, float]
    broker_cpu: float
    redis_cpu: float
    machine_cpu: float
    own_cpu: float
    read: dict[Stage, int]
    stored: dict[str, int]
    records: Counter[str]
    values: Counter[str]
    transactions: Counter[Stage]
    redis_commands: int
    redis_memory: int
    append_only: int
    keys: Counter[str]


@dataclass(slots=True)
class _Peaks:
    """The most of a run. ``redis`` is the memory of Redis while the most requests were under way."""

    unfinished: int = 0
    redis: int = 0
    blobs: int = 0


@dataclass(frozen=True, slots=True)
class _Stand:
    """The servers and workers of one measurement."""

    cluster: Cluster
    web: WebServer
    client: redis.Redis
    blobs: Path

    @property
    def pipeline(self) -> Pipeline:
        return self.cluster.pipeline

    @property
    def keys(self) -> Keys:
        return Keys(self.pipeline.topics.prefix)

    @property
    def broker_pid(self) -> int:
        return self.cluster.server_pid(BROKER)

    @property
    def redis_pid(self) -> int:
        return self.cluster.server_pid(REDIS)

    @property
    def pids(self) -> dict[Stage, int]:
        """The worker of each stage, as far as they were started."""
        return {Stage(service): pid for service, pid in self.cluster.worker_pids().items()}

    # Looking

    def snapshot(self) -> _Snapshot:
        stored, records, values, transactions = self._kafka()
        information = self.client.info()
        return _Snapshot(
            at=time.monotonic(),
            cpu={stage: cpu_s_of(pid) for stage, pid in self.pids.items()},
            broker_cpu=cpu_s_of(self.broker_pid),
            redis_cpu=cpu_s_of(self.redis_pid),
            machine_cpu=busy_s(),
            own_cpu=time.process_time(),
            read={stage: read_bytes(pid) for stage, pid in self.pids.items()},
            stored=stored,
            records=records,
            values=values,
            transactions=transactions,
            redis_commands=int(information["total_commands_processed"]),
            redis_memory=int(information["used_memory"]),
            append_only=int(information["aof_current_size"]),
            keys=self._key_bytes(),
        )

    def _kafka(self) -> tuple[dict[str, int], Counter[str], Counter[str], Counter[Stage]]:
        """Stored bytes, records and value bytes by topic, committed transactions by stage, from the beginning."""
        servers = self.pipeline.bootstrap_servers
        admin = KafkaAdminClient(bootstrap_servers=servers)
        try:
            stored: Counter[str] = Counter()
            for broker in admin.describe_log_dirs():
                for topic in _topics_of(broker):
                    stored[topic["name"]] += sum(one["partition_size"] for one in topic["partitions"])
        finally:
            admin.close()
        records: Counter[str] = Counter()
        values: Counter[str] = Counter()
        transactions: Counter[Stage] = Counter()
        ours = [self.pipeline.topics.name(channel) for channel in Channel]
        for topic, key, value in _all_records(servers, [*ours, "__transaction_state"]):
            if topic == "__transaction_state":
                stage = self._stage_of(key)
                if stage is not None and value is not None and _TRANSACTION.unpack_from(value)[4] == _COMMITTED:
                    transactions[stage] += 1
                continue
            records[topic] += 1
            values[topic] += len(value or b"")
        return dict(stored), records, values, transactions

    def _stage_of(self, key: bytes) -> Stage | None:
        """The stage whose transactional ID this is. A lane belongs to its stage."""
        for stage in Stage:
            if self.pipeline.topics.group(stage.value).encode() in key:
                return stage
        return None

    def _key_bytes(self) -> Counter[str]:
        """Memory of the keys by kind: the word behind the prefix."""
        found: Counter[str] = Counter()
        for key in self.client.scan_iter(f"{self.keys.prefix}:*", count=1000):
            kind = str(key).removeprefix(f"{self.keys.prefix}:").removeprefix(f"{{{self.keys.prefix}}}:").split(":")[0]
            found[kind] += int(self.client.memory_usage(key, samples=0) or 0)
        return found

    @contextlib.contextmanager
    def sampled(self) -> Iterator[_Peaks]:
        """The peaks of what happens within the block."""
        peaks, over = _Peaks(), threading.Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_S):
                unfinished = int(self.client.zcard(self.keys.waiting()))
                memory = int(self.client.info("memory")["used_memory"])
                if unfinished > peaks.unfinished:
                    peaks.unfinished, peaks.redis = unfinished, memory
                peaks.blobs = max(peaks.blobs, _folder_bytes(self.blobs))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield peaks
        finally:
            over.set()
            thread.join()

    # Working

    def serve(self, files: Sequence[Path]) -> list[str]:
        """The URLs under which the files can be fetched."""
        for file in files:
            self.web.add_handler(f"/{file.name}", _answer_with(file))
        return [self.web.url(f"/{file.name}") for file in files]

    def classify(self, urls: Sequence[str], together: bool) -> _Answers:
        """Submit all at once, or each after the answer of the one before; return when the last result is there."""
        submitted: dict[str, float] = {}
        answered: dict[str, Answer] = {}
        started = time.monotonic()
        for wave in [urls] if together else [[url] for url in urls]:
            now = time.monotonic()
            ids = self.cluster.submit(wave, force=False)
            submitted |= dict.fromkeys(ids, now)
            answered |= self.cluster.wait(ids)
        return _Answers(
            makespan_s=max(answer.at for answer in answered.values()) - started,
            latency_s=statistics.fmean(answered[one].at - submitted[one] for one in submitted),
            results=[answer.result for answer in answered.values()],
        )

    def settle(self) -> None:
        """Wait until every group has read everything and the last audio is removed."""
        deadline = time.monotonic() + 60.0
        while self.pipeline.lag() or _folder_bytes(self.blobs) or self.client.zcard(self.keys.waiting()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"work is left: lag {self.pipeline.lag()}")
            time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class _Answers:
    makespan_s: float
    latency_s: float
    results: list[TrackResult]


def _answer_with(file: Path) -> Any:
    def answer(exchange: Exchange) -> None:
        fields = {"ETag": f'"{file.name}"', "Content-Type": "audio/mpeg"}
        exchange.answer(200, file.read_bytes(), fields)

    return answer


def _topics_of(broker: Any) -> Iterator[Any]:
    """The topics in the answer of one broker about its folders."""
    for folder in broker["log_dirs"]:
        yield from folder["topics"]


def _all_records(servers: str, topics: Sequence[str]) -> Iterator[tuple[str, bytes, bytes | None]]:
    """Topic, key and value of every record that the topics hold now."""
    consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(name, n) for name in topics for n in consumer.partitions_for_topic(name) or ()]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        while any(consumer.position(one) < ends[one] for one in partitions):
            for found in consumer.poll(timeout_ms=500).values():
                for record in found:
                    yield record.topic, record.key or b"", record.value
    finally:
        consumer.close()


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files below ``folder``. One that is removed meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


# Measuring


def run_of(stand: _Stand, files: Sequence[Path], together: bool = True) -> Run:
    """One run: all files at once, or one by one."""
    urls = stand.serve(files)
    stand.settle()
    before = stand.snapshot()
    began, machine, own = time.monotonic(), busy_s(), _ours(stand)
    with stand.sampled() as peaks:
        answers = stand.classify(urls, together)
    ended = time.monotonic()
    others = (busy_s() - machine) - (_ours(stand) - own)
    cores = (os.cpu_count() or 1) - others / (ended - began)
    stand.settle()
    after = stand.snapshot()
    return _run(stand, files, before, after, peaks, answers, round(cores, 2))


def _ours(stand: _Stand) -> float:
    """CPU seconds of the workers and servers so far; those of this process are others'."""
    return sum(map(cpu_s_of, [*stand.pids.values(), stand.broker_pid, stand.redis_pid]))


def _run(
    stand: _Stand,
    files: Sequence[Path],
    before: _Snapshot,
    after: _Snapshot,
    peaks: _Peaks,
    answers: _Answers,
    cores: float,
) -> Run:
    count = len(files)
    topics = {}
    for channel in Channel:
        name = stand.pipeline.topics.name(channel)
        topics[channel] = TopicCosts(
            records=(after.records[name] - before.records[name]) / count,
            value_bytes=round((after.values[name] - before.values[name]) / count),
            stored_bytes=round((after.stored.get(name, 0) - before.stored.get(name, 0)) / count),
        )
    durations = [result.track.duration_s or 0.0 for result in answers.results]
    segments = [len(result.genre.segments) for result in answers.results if result.genre is not None]
    kept = after.keys - before.keys
    in_flight = (peaks.redis - before.redis_memory) / max(1, peaks.unfinished)
    readers = (Stage.FEATURE_EXTRACTION, Stage.MOOD_WORKER)
    return Run(
        tracks=count,
        track_s=round(statistics.fmean(durations), 2),
        encoded_bytes=round(statistics.fmean(file.stat().st_size for file in files)),
        segments=round(statistics.fmean(segments), 2),
        workers_each=1,
        cores=cores,
        makespan_s=round(answers.makespan_s, 2),
        latency_s=round(answers.latency_s, 2),
        most_unfinished=peaks.unfinished,
        cpu_s={stage: round((after.cpu[stage] - before.cpu[stage]) / count, 4) for stage in Stage},
        broker_cpu_s=round((after.broker_cpu - before.broker_cpu) / count, 4),
        topics=topics,
        kafka_internal_bytes=round(
            sum(after.stored.get(name, 0) - before.stored.get(name, 0) for name in _INTERNAL) / count
        ),
        transactions={
            stage: round((after.transactions[stage] - before.transactions[stage]) / count, 3) for stage in Stage
        },
        redis=RedisCosts(
            commands=round((after.redis_commands - before.redis_commands) / count, 1),
            cpu_s=round((after.redis_cpu - before.redis_cpu) / count, 5),
            request_bytes=round(kept["request"] / count),
            result_bytes=round(kept["result"] / count),
            source_bytes=round(kept["source"] / count),
            in_flight_bytes=max(0, round(in_flight)),
            append_only_bytes=round((after.append_only - before.append_only) / count),
        ),
        blobs=BlobCosts(
            written_bytes=round(statistics.fmean(_WAV_HEADER_BYTES + _WAV_BYTES_A_SECOND * s for s in durations)),
            read_bytes={stage: round((after.read[stage] - before.read[stage]) / count) for stage in readers},
            peak_bytes=peaks.blobs,
        ),
    )


def measure(music: Path, clips: int, tracks: int, genre_engine: str, command: str) -> Measured:
    """All of it, some minutes on a quiet machine. Raises NotMeasuredError, also without the servers.

    ``genre_engine`` runs the networks of the genre worker; ONNX Runtime those of the mood worker, as in the images.
    """
    files = music_files(music)
    if clips + _ONE_BY_ONE > len(files):
        raise ValueError(f"{clips} clips need {clips + _ONE_BY_ONE} files of music; {music} has {len(files)}")
    load_before = os.getloadavg()[0]
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tonestream-capacity-")))
        warm, clip_files, track_files = _encoded(files, folder, clips, tracks)
        web = held.enter_context(WebServer())
        choose_genre_model(None)
        cluster = Cluster(
            folder, worker_threads="1", fetch_allow="127.0.0.1", models_dir=str(ROOT / "models"), **_PATIENT
        )
        held.enter_context(cluster)
        client = held.enter_context(redis.Redis.from_url(cluster.redis_url, decode_responses=True))
        stand = _Stand(cluster, web, client, folder / "blobs")
        engines = dict.fromkeys(Stage, "onnx") | {Stage.GENRE_WORKER: genre_engine}
        start_s = {stage: _started(stand, stage, engines[stage]) for stage in Stage}
        _say("workers started", start_s)
        stand.classify(stand.serve(warm), together=True)
        stand.settle()
        commit_s, delivery_s = _hop(stand.pipeline.bootstrap_servers)
        _say("commit and delivery", commit_s, delivery_s)
        idle = _idle(stand)
        clip = run_of(stand, clip_files[:clips])
        _say("clips", clip.makespan_s, clip.cpu_s)
        low = run_of(stand, clip_files[clips:], together=False)
        _say("one by one", low.latency_s)
        track = run_of(stand, track_files)
        _say("tracks", track.makespan_s, track.cpu_s)
        memory = {stage: memory_bytes(pid) for stage, pid in stand.pids.items()}
        broker_memory, redis_memory = memory_bytes(stand.broker_pid), memory_bytes(stand.redis_pid)
        settings = Settings.model_construct()  # the defaults: workers get nothing of this environment
        return Measured(
            commit=_commit(),
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            command=command,
            machine=_processor(),
            cores=os.cpu_count() or 1,
            load_before=round(load_before, 2),
            versions={
                "python": platform.python_version(),
                "kafka": cluster.versions[BROKER],
                "redis": cluster.versions[REDIS],
                **{name: version(name) for name in _ENGINES[genre_engine]},
            },
            genre_model=settings.genre_model,
            tag_model=settings.tag_model,
            genre_engine=genre_engine,
            partitions=PARTITIONS,
            clip=clip,
            track=track,
            low_rate=low,
            idle={stage: Idle(cpu=idle[stage], memory_bytes=memory[stage]) for stage in Stage},
            idle_broker=Idle(cpu=idle["broker"], memory_bytes=broker_memory),
            idle_redis=Idle(cpu=idle["redis"], memory_bytes=redis_memory),
            start_s=start_s,
            commit_s=commit_s,
            delivery_s=delivery_s,
        )


def _say(*said: object) -> None:
    print(*said, file=sys.stderr, flush=True)


#: Clips for warming up, and clips that go one by one.
_WARM: Final = 8
_ONE_BY_ONE: Final = 8


def _encoded(files: Sequence[Path], folder: Path, clips: int, tracks: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Warm-up pieces, clips and four-minute tracks. No two have the same audio."""

    def piece(name: str, sources: Sequence[Path]) -> Path:
        target = folder / f"{name}.mp3"
        encode(sources, target)
        return target

    warm = [piece(f"warm-{n}", [files[n], files[n + 1]]) for n in range(_WARM)]
    singles = [piece(f"clip-{n}", [files[n]]) for n in range(clips + _ONE_BY_ONE)]
    wholes = [
        piece(f"track-{n}", [files[(n * _PIECES + k * (1 + n // len(files))) % len(files)] for k in range(_PIECES)])
        for n in range(tracks)
    ]
    return warm, singles, wholes


def _started(stand: _Stand, stage: Stage, engine: str) -> float:
    """Start a worker; seconds until it is ready."""
    began = time.monotonic()
    stand.cluster.start([stage.value], TONESTREAM_ENGINE=engine)
    return round(time.monotonic() - began, 2)


def _hop(servers: str) -> tuple[float, float]:
    """Median seconds of one small transaction, and from its end until a waiting member of another group holds its
    record."""
    bus = KafkaBus(KafkaConfig(servers))
    bus.create_topics([TopicSpec("probe-in", 1), TopicSpec("probe-out", 1)])
    committed: list[tuple[float, float]] = []
    held: list[float] = []
    over = threading.Event()

    def hold() -> None:
        with bus.join("probe-behind", ["probe-out"]) as behind:
            while len(held) < _PROBES and not over.is_set():
                held.extend(time.monotonic() for _ in behind.poll(1, 1.0))

    waiting = threading.Thread(target=hold, daemon=True)
    try:
        with bus.publisher() as publisher, bus.join("probe", ["probe-in"]) as member:
            waiting.start()
            while not member.assigned():
                member.poll(1, 0.5)
            for number in range(_PROBES):
                publisher.publish([Outgoing("probe-in", b"k", str(number).encode(), ())])
                records: list[Record] = []
                while not records:
                    records = member.poll(1, 1.0)
                began = time.monotonic()
                member.commit([Outgoing("probe-out", b"k", b"v", ())], records)
                committed.append((began, time.monotonic()))
                time.sleep(0.1)
        waiting.join(30.0)
    finally:
        over.set()
        bus.close()
    if len(held) < _PROBES:
        raise TimeoutError(f"{len(held)} of {_PROBES} records were delivered")
    commits = statistics.median(end - began for began, end in committed)
    # A member that had not joined yet got the first records late; the median does not mind.
    deliveries = statistics.median(max(0.0, at - end) for at, (_, end) in zip(held, committed, strict=True))
    return round(commits, 4), round(deliveries, 4)


def _idle(stand: _Stand) -> dict[str, float]:
    """Cores that each process takes without work."""
    named = {stage.value: pid for stage, pid in stand.pids.items()}
    named |= {"broker": stand.broker_pid, "redis": stand.redis_pid}
    before = {name: cpu_s_of(pid) for name, pid in named.items()}
    time.sleep(_IDLE_S)
    return {name: round((cpu_s_of(pid) - before[name]) / _IDLE_S, 4) for name, pid in named.items()}


def _commit() -> str:
    """The commit that is checked out, with ``+`` if the code of the services differs from it."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "shared", "services", "models"], cwd=ROOT, check=False
    )
    return done.stdout.strip() + ("+" if changed.returncode else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
