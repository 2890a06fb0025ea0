"""Blobs on a real S3 server, and on one that makes trouble: each call ends in time, in a blob or in a sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.doctor.blobs import blob_store
from shared.blobs.remote import BlobsAwayError
from shared.blobs.s3 import PART_BYTES
from shared.blobs.store import BlobGoneError, BlobStore
from shared.contracts.errors import DependencyError
from shared.settings import Settings
from tests.support.s3_server import S3Server, TroubledS3

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[TroubledS3]:
    """One for all: a client takes a second of CPU time to be made, and fsspec keeps one for each address."""
    with pytest.MonkeyPatch.context() as patch, TroubledS3(s3_server.url) as running:
        for name, value in s3_server.credentials.items():
            patch.setenv(name, value)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        yield running


@pytest.fixture
def troubled(proxy: TroubledS3) -> Iterator[TroubledS3]:
    yield proxy
    proxy.calm()


@pytest.fixture
def bucket(s3_server: S3Server, proxy: TroubledS3) -> str:
    return s3_server.bucket()


@pytest.fixture
def store(bucket: str, troubled: TroubledS3) -> BlobStore:
    return BlobStore(f"s3://{bucket}/blobs", TIMEOUT_S, troubled.url)


def file_of(tmp_path: Path, size: int) -> Path:
    file = tmp_path / f"{size}"
    file.write_bytes(os.urandom(size))
    return file


def test_a_blob_is_read_back_by_others_at_once_also_where_they_missed_it_before(
    store: BlobStore, bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    other = BlobStore(f"s3://{bucket}/blobs", TIMEOUT_S, s3_server.url)
    assert other.away() is None and other.listed("audio") == []
    assert not other.exists("blob:audio/a.wav")
    file = file_of(tmp_path, 70_000)
    assert store.put(file, "audio/a.wav") == "blob:audio/a.wav"
    assert other.exists("blob:audio/a.wav") and other.size("blob:audio/a.wav") == 70_000
    assert [(blob.reference, blob.size) for blob in other.listed("audio")] == [("blob:audio/a.wav", 70_000)]
    assert abs(other.listed("audio")[0].written_at - time.time()) < 60
    with other.open("blob:audio/a.wav") as opened:
        opened.seek(69_990)
        assert opened.read() == file.read_bytes()[-10:]
        opened.seek(0)
        assert opened.read(5) == file.read_bytes()[:5]
    other.delete("blob:audio/a.wav")
    other.delete("blob:audio/a.wav")
    assert not store.exists("blob:audio/a.wav")
    with pytest.raises(BlobGoneError):
        store.open("blob:audio/a.wav")
    with pytest.raises(BlobGoneError):
        store.size("blob:audio")


def test_a_large_blob_travels_in_parts_and_memory_holds_few_of_them(
    store: BlobStore, troubled: TroubledS3, tmp_path: Path
) -> None:
    file = file_of(tmp_path, 2 * PART_BYTES + 1000)
    reference = store.put(file, "audio/large.wav")
    assert troubled.asked["PUT"] == 3 and troubled.asked["POST"] == 2, "three parts, a beginning and an end"
    store.fetch(reference, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == file.read_bytes()
    with store.writing("audio/written.wav") as opened:
        opened.write(b"x" * 10)
    assert store.size("blob:audio/written.wav") == 10


def test_a_store_that_asks_to_slow_down_is_asked_again_after_pauses(
    store: BlobStore, troubled: TroubledS3, tmp_path: Path
) -> None:
    file = file_of(tmp_path, 1000)
    troubled.slow_down(2)
    reference = store.put(file, "audio/a.wav")
    assert troubled.asked["PUT"] == 3 and troubled.refused == 2
    troubled.slow_down(2, "GET")
    with store.open(reference) as opened:
        assert opened.read() == file.read_bytes()
    troubled.refuse(503, "SlowDown", "Please reduce your request rate.")
    asked = sum(troubled.asked.values())
    with pytest.raises(BlobsAwayError, match=r"cannot be written to: it is busy: .*reduce your request rate"):
        store.put(file, "audio/b.wav")
    assert sum(troubled.asked.values()) - asked <= 8


def test_a_body_that_breaks_off_is_fetched_again(store: BlobStore, troubled: TroubledS3, tmp_path: Path) -> None:
    file = file_of(tmp_path, 200_000)
    reference = store.put(file, "audio/a.wav")
    troubled.cut_bodies = 1
    store.fetch(reference, tmp_path / "got")
    troubled.cut_bodies = 1
    with store.open(reference) as opened:
        assert (tmp_path / "got").read_bytes() == file.read_bytes() == opened.read()


def test_a_silent_store_ends_a_call_in_time_and_clean_up_does_not_wait_again(bucket: str, troubled: TroubledS3) -> None:
    store = BlobStore(f"s3://{bucket}/blobs", 5.0, troubled.url)
    troubled.silent.set()
    started = time.monotonic()
    with pytest.raises(BlobsAwayError, match="no answer in time"):
        store.exists("blob:audio/a.wav")
    assert time.monotonic() - started < 15
    assert "no answer in time" in (store.away() or "")
    started = time.monotonic()
    for _ in range(100):
        with pytest.raises(BlobsAwayError, match="a moment ago"):
            store.delete("blob:audio/a.wav")
    assert time.monotonic() - started < 1
    troubled.silent.clear()
    assert store.away() is None


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "the access key is not known there; they come from AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the secret key does not belong to the access key"),
        (400, "ExpiredToken", "the session token has expired"),
        (403, "AccessDenied", "needed are s3:ListBucket on the bucket; s3:GetObject, s3:PutObject and"),
        (400, "AuthorizationHeaderMalformed", "in another region: set AWS_REGION"),
        (301, "PermanentRedirect", "in another region: set AWS_REGION"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (404, "NoSuchBucket", "there is no such bucket"),
    ],
)
def test_a_refusal_says_what_to_mend_and_is_no_missing_blob(
    store: BlobStore, troubled: TroubledS3, tmp_path: Path, status: int, code: str, said: str
) -> None:
    troubled.refuse(status, code, "no")
    file = file_of(tmp_path, 10)
    for call in (store.away, lambda: store.exists("blob:audio/a.wav"), lambda: store.put(file, "audio/a.wav")):
        with pytest.raises(DependencyError, match=said) as caught:
            call()
        assert not isinstance(caught.value, BlobsAwayError)


def test_an_archived_blob_is_gone_and_stops_nobody(store: BlobStore, troubled: TroubledS3) -> None:
    troubled.refuse(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
    with pytest.raises(BlobGoneError):
        store.open("blob:audio/a.wav")


def test_without_credentials_or_a_server_the_sentence_names_them(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "Connect call failed" in (BlobStore(f"s3://{bucket}/x", TIMEOUT_S, "http://127.0.0.1:9").away() or "")
    with pytest.raises(DependencyError, match="no bucket can have this name"):
        BlobStore("s3://No_Bucket!/x", TIMEOUT_S, s3_server.url).away()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(DependencyError, match="there are no credentials"):
        BlobStore(f"s3://{bucket}/first", TIMEOUT_S, f"{s3_server.url}/").away()
    file.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    assert BlobStore(f"s3://{bucket}/second", TIMEOUT_S).away() is None, "address and credentials of the environment"


def test_the_role_of_the_machine_is_used_where_nothing_else_is_given(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    # Moto answers as the metadata service of a machine does.
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s3_server.url)
    assert BlobStore(f"s3://{bucket}/role", TIMEOUT_S, s3_server.url.replace("127.0.0.1", "localhost")).away() is None


def test_what_is_forgotten_is_swept_and_rules_of_the_bucket_are_asked_for(
    store: BlobStore, bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    store.put(file_of(tmp_path, 10), "audio/a.wav")
    settings = Settings(blob_url=f"s3://{bucket}/blobs", blob_endpoint_url=s3_server.url)
    assert [finding.level for finding in blob_store(settings)] == ["ok", "warn", "warn"]
    rule = {
        "ID": "tonestream", "Status": "Enabled", "Filter": {"Prefix": "blobs/"}, "Expiration": {"Days": 2},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }  # fmt: skip
    s3_server.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    assert [finding.level for finding in blob_store(settings)] == ["ok"]
    late = settings.model_copy(update={"blob_ttl_s": 7 * 24 * 3600})
    assert [finding.level for finding in blob_store(late)] == ["ok", "fail"]
    missing = settings.model_copy(update={"blob_url": "s3://there-is-none/blobs"})
    (finding,) = blob_store(missing)
    assert finding.level == "fail" and "there is no such bucket" in finding.message
    assert store.sweep(3600.0) == 0
    assert store.sweep(-5.0) == 1 and store.listed("audio") == []
