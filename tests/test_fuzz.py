"""Tables and sounds that anyone may have written: a proper result or one sentence, never code or all of the memory."""

import csv
import io
import os
import pickle
import resource
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from conftest import RATE, TINY, tone
from hypothesis import example, given
from hypothesis import strategies as st

from vaelib import audio
from vaelib.collection import Corpus, read_corpus
from vaelib.config import InputError

MOST_MIB = 700  # that the process may grow by while it reads anything here
HOSTILE = [
    "", " ", "\0", "a\0b", "../../etc/passwd", "/etc/passwd", "..", "~root/x", "a\nb", "a\r\nb", '"', "'", ";", "\t",
    "\ufeff", "\u202e\u05d0\u0645", "😀.flac", "\ud800", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "{{7*7}}",
    "$(id)", "x" * 5000, "NaN", "nan", "inf", "1e999", "1_000", "0x10", "9" * 400, "2001-99-99", "true", "null",
    "C:\\x", "a/./b", "a//b", "!!python/object/apply:os.system ['touch pwned']", "%s%n", "\\", "__class__", "path",
]  # fmt: skip
words = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 2**63]))


@pytest.fixture(autouse=True)
def no_code_and_no_blow_up(monkeypatch):
    """Nothing that was read is executed, and memory stays where it is."""

    def ran(*_, **__):
        pytest.fail("something that was read was executed")

    for where, name in ((os, "system"), (subprocess, "Popen"), (pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(where, name, ran)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MIB * 1024


def outcome(read, *given):
    """What was read, or None where it was refused in one short sentence."""
    try:
        return read(*given)
    except InputError as e:
        assert str(e).strip() and "Traceback" not in str(e) and len(str(e)) < 4000
        return None


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"x")
    return folder


def corpus_of(music, content):
    (music / "manifest.csv").write_bytes(content)
    found = outcome(read_corpus, music)
    if found is not None:
        assert isinstance(found, Corpus) and len(found.table) > 0
        for path in found.table["path"]:
            assert music.resolve() in (music / path).resolve().parents, path
        assert len(found.fingerprint()) > 8
    return found


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda b: b"path,language\n" + b)))
@example(b"path\na.wav\n\xff\xfe\n")
@example("path,language\na.wav,en\n".encode("utf-16"))
@example(b"PAR1" + b"\0" * 40 + b"PAR1")
@example(b"path\n" + b"a" * 100_000)
@example(b"path," + b"x," * 500 + b"\na.wav")
def test_a_manifest_of_any_bytes(music, content):
    corpus_of(music, content)


@st.composite
def tables(draw):
    names = ["language", "genre", "artist", "track", "split", "tempo", "n_frames", "level_db", "clip"]
    header = ["path", *draw(st.lists(st.one_of(st.sampled_from(names), words), max_size=4))]
    header = draw(st.permutations(header))
    cell = st.one_of(words, numbers.map(str), st.just("a.wav"), st.just("b.wav"))
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header) + 1), max_size=4))
    text = io.StringIO()
    form = {"delimiter": draw(st.sampled_from(",,,;\t|")), "lineterminator": draw(st.sampled_from(["\n", "\r\n"]))}
    csv.writer(text, escapechar="\\", **form).writerows([header, *rows])
    return (draw(st.sampled_from(["", "\ufeff"])) + text.getvalue()).encode(errors="surrogatepass")


@given(content=tables())
@example(b"path,path\na.wav,b.wav\n")
@example(b"path,tempo\na.wav,1e999\nb.wav,nan\n")
@example(b"path,tempo\na.wav," + b"9" * 400 + b"\n")
@example(b"path\na\0b.wav\n")
def test_a_manifest_of_any_table(music, content):
    corpus_of(music, content)


@pytest.fixture(scope="module")
def sounds():
    """The bytes of a good file of each kind."""
    found = {}
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        file = io.BytesIO()
        soundfile.write(file, tone(220, 2), RATE, format=kind)
        found[kind] = file.getvalue()
    return found


def heard(folder, content):
    path = folder / "a.wav"
    path.write_bytes(content)
    about = outcome(audio.header, path)
    if about is not None:
        found = outcome(audio.read, path, TINY, 0.0, 3.0)
        assert found is None or np.isfinite(found[0].numpy()).all()


@given(content=st.binary(max_size=300))
@example(b"RIFF\xff\xff\xff\xffWAVEfmt ")
@example(b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", 36, b"WAVE", b"fmt ", 16, 1, 65535, 1, 1, 1, 8, b"data", 2**31))
def test_a_sound_of_any_bytes(tmp_path, content):
    heard(tmp_path, content)


@given(data=st.data())
def test_a_sound_that_is_cut_or_has_flipped_bits(tmp_path, sounds, data):
    content = bytearray(sounds[data.draw(st.sampled_from(sorted(sounds)))])
    for at in data.draw(st.lists(st.integers(0, min(len(content), 4000) - 1), max_size=4)):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    heard(tmp_path, bytes(content[: data.draw(st.integers(0, len(content)))]))
