"""A plugin for beets: genre, mood, tempo and key, from a Tonestream gateway."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from beets import ui
from beets.dbcore import types
from beets.plugins import BeetsPlugin
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

#: How many files are on their way at the same time.
AT_ONCE = 4
FEATURES = ("energy", "valence", "danceability", "acousticness", "instrumentalness")


class TonestreamPlugin(BeetsPlugin):
    """``beet tonestream [query]``, and every import if ``auto`` is set."""

    #: Numbers, so that `beet ls energy:..0.4` compares them as such.
    item_types = dict.fromkeys((*FEATURES, "tonestream_genre_confidence"), types.FLOAT)

    def __init__(self) -> None:
        super().__init__()
        self.config.add(
            {"url": "http://localhost:8000", "api_key": "", "auto": False, "overwrite": False, "min_confidence": 0.5}
        )
        self.config["api_key"].redact = True
        if self.config["auto"].get(bool):
            self.import_stages = [lambda session, task: self.classify(task.imported_items(), write=False)]

    def commands(self) -> list[ui.Subcommand]:
        command = ui.Subcommand("tonestream", help="find genre, mood, tempo and key by listening")
        command.parser.add_option("-f", "--force", action="store_true", help="also what was classified before")
        command.func = lambda lib, options, arguments: self.classify(
            [item for item in lib.items(arguments) if options.force or not item.get("tonestream_status")],
            write=ui.should_write(),
        )
        return [command]

    def classify(self, items: Iterable[Any], write: bool) -> None:
        """Classify these items and store what was found; write it into the files if ``write``."""
        items = list(items)
        with self._session() as session, ThreadPoolExecutor(AT_ONCE) as threads:
            paths = [item.filepath for item in items]  # taken here: beets completes them in this thread only
            answers = threads.map(lambda path: self._answer(session, path), paths)
            for item, answer in zip(items, answers, strict=True):
                if isinstance(answer, str):
                    self._log.warning("{}: {}", item, answer)
                    continue
                self._set(item, answer)
                item.store()
                if write and answer["status"] != "failed":
                    item.try_write()

    def _session(self) -> requests.Session:
        session = requests.Session()
        # A submission may be sent again, because its Idempotency-Key makes it the same request.
        retry = Retry(5, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None)
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        if key := self.config["api_key"].get(str):
            session.headers["Authorization"] = f"Bearer {key}"
        return session

    def _answer(self, session: requests.Session, path: Path) -> dict[str, Any] | str:
        """The result of one file, or why there is none."""
        tracks = f"{self.config['url'].get(str).rstrip('/')}/v1/tracks"
        request_id = f"beets-{uuid.uuid4().hex}"
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Filename": quote(os.fsencode(path.name)),
            "Idempotency-Key": request_id,
        }
        try:
            with path.open("rb") as file:
                response = session.post(tracks, data=file, headers=headers, timeout=60)
            while response.ok:
                if (result := response.json().get("result")) is not None:
                    return dict(result)
                response = session.get(f"{tracks}/{request_id}", params={"wait": 30}, timeout=90)
            return str(response.json().get("detail") or response.status_code)
        except requests.ConnectionError:
            return f"no gateway answers at {tracks}"
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            return str(error)

    def _set(self, item: Any, result: dict[str, Any]) -> None:
        item["tonestream_status"] = result["status"]
        for error in result["errors"]:
            item["tonestream_error"] = error["code"]
            self._log.warning("{}: {}", item, error["message"])
        least, overwrite = self.config["min_confidence"].get(float), self.config["overwrite"].get(bool)
        genre, mood, key, heard = (result[name] for name in ("genre", "mood", "key", "audio_features"))
        if genre is not None:
            item["tonestream_genre"] = genre["label"]
            item["tonestream_genre_confidence"] = genre["confidence"]
            if genre["confidence"] >= least and (overwrite or not item.genres):
                item.genres = [genre["label"].title()]
        if mood is not None and mood["confidence"] >= least:
            item["mood"] = mood["label"]
        if heard is not None:
            for name in FEATURES:
                item[name] = round(heard[name], 3)
            if heard["tempo"] > 0 and (overwrite or not item.bpm):
                item.bpm = round(heard["tempo"])
        if key is not None and (overwrite or not item.initial_key):
            item.initial_key = key["tonic"] + ("m" if key["mode"] == "minor" else "")
