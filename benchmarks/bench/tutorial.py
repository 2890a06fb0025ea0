"""The tutorial: how a genre classifier is usually written down.

pydub turns the MP3 into a WAV, librosa loads it, each segment of 3 s becomes 13 MFCCs, ``model.predict`` is called for
each, and the most frequent label wins. The network is the seed's: two layers of LSTM(64). Its weights are not trained,
which takes the same time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import keras
import librosa
import numpy as np
from pydub import AudioSegment

from benchmarks.bench.warm import Classify, serve
from shared.audio.decode import find_ffmpeg

_SEGMENT_S: Final = 3
_MFCCS: Final = 13
_GENRES: Final = 10


def prepare() -> Classify:
    """Builds the network."""
    model = keras.Sequential(
        [
            keras.layers.Input((None, _MFCCS)),
            keras.layers.LSTM(64, return_sequences=True),
            keras.layers.LSTM(64),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(_GENRES, activation="softmax"),
        ]
    )

    AudioSegment.converter = find_ffmpeg()
    # Without ffprobe, which the bundled ffmpeg lacks, pydub reads files this way only.
    read = AudioSegment.from_file if shutil.which("ffprobe") else AudioSegment.from_file_using_temporary_files

    def classify_one(file: Path) -> int:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "track.wav"
            read(file).export(wav, format="wav")
            signal, rate = librosa.load(wav)
        length = _SEGMENT_S * int(rate)
        votes: Counter[int] = Counter()
        for start in range(0, len(signal) - length + 1, length):
            mfcc = librosa.feature.mfcc(y=signal[start : start + length], sr=rate, n_mfcc=_MFCCS).T
            votes[int(np.argmax(model.predict(mfcc[np.newaxis], verbose=0)))] += 1
        return votes.most_common(1)[0][0]

    def classify(files: Sequence[Path], at_once: bool) -> None:
        for file in files:
            classify_one(file)

    return classify


if __name__ == "__main__":
    serve(prepare)
