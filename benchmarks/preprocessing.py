"""Preprocessing clips/s: our store, a librosa loop with the same parameters, and decoding alone."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from vaelib.config import FrontEnd, data_dir

from .turns import Candidate, alternate, figures, ratio

SECONDS = {"compact": 10.0, "full": 30.0}  # length of a clip: more than a window, and a whole one
TITLES = {
    "ours": "vaelib's store, all cores",
    "librosa": "librosa loop, one process",
    "decode": "decoding alone, all cores",
}


def rendered(fe: FrontEnd, clips_per_genre: int) -> Path:
    """Folder of a demo corpus for a front end; rendered once and kept with the other corpora."""
    from vaelib_demo import Dials, render_corpus

    dials = Dials(clips_per_genre=clips_per_genre, seconds=SECONDS[fe.name])
    folder = data_dir() / "corpora" / dials.name
    render_corpus(folder, dials)
    return folder


def measure(
    fe: FrontEnd, corpus: Path, *, rounds: int, show: Callable[[str], None] = lambda line: None
) -> dict[str, object]:
    """Time the three, in turns, each on every clip of a corpus whose clips are all usable.

    Ours is the whole way from the folder to a finished store: reading the manifest, checking every header, decoding,
    log-mel, level and tilt, compressing and writing. The librosa loop keeps its spectrograms in memory.
    """
    import librosa
    import soundfile

    from vaelib.audio import AUDIO_SUFFIXES, FLOOR
    from vaelib.store import build_store

    files = sorted(p for p in corpus.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    cores = os.cpu_count() or 1

    def ours(times: int) -> int:
        for _ in range(times):
            with folders(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                build_store(corpus, fe)
        return times * len(files)

    def by_librosa(times: int, paths: list[Path] = files) -> int:
        for _ in range(times):
            for path in paths:
                wave, _ = librosa.load(path, sr=fe.sample_rate)
                power = librosa.feature.melspectrogram(
                    y=wave, sr=fe.sample_rate, n_fft=fe.n_fft, hop_length=fe.hop, n_mels=fe.n_mels, fmax=fe.f_max
                )
                librosa.power_to_db(power, ref=1.0, amin=FLOOR, top_db=None)
        return times * len(paths)

    def decode(times: int) -> int:
        for _ in range(times):
            with ThreadPoolExecutor(cores) as pool:
                for _wave, _rate in pool.map(lambda p: soundfile.read(p, dtype="float32"), files):
                    pass
        return times * len(files)

    show(f"{fe.name}: warming up")
    decode(1)  # the files are in memory from here on, for all three
    by_librosa(1, files[:4])
    ours(1)
    samples = alternate(
        [Candidate("ours", ours), Candidate("librosa", by_librosa), Candidate("decode", decode)],
        rounds,
        lambda line: show(f"{fe.name}, {line}"),
    )
    return {
        "profile": fe.name,
        "corpus": corpus.name,
        "clips": len(files),
        "cores": cores,
        **{name: {"title": TITLES[name]} | figures(s) for name, s in samples.items()},
        "over_librosa": ratio(samples["ours"], samples["librosa"]),
        "over_decode": ratio(samples["ours"], samples["decode"]),
    }


@contextlib.contextmanager
def folders() -> Iterator[None]:
    """Stores and runs go to a temporary folder meanwhile."""
    with tempfile.TemporaryDirectory(prefix="vaelib-bench-") as folder, mock.patch.dict(os.environ):
        os.environ |= {"VAELIB_DATA": folder, "VAELIB_OUTPUTS": folder}
        yield
