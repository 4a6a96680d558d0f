"""Audio files of every kind: headers, parts of files, ffmpeg's formats, odd rates, and what is said of bad ones."""

import random
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from conftest import RATE, TINY, tone

from vaelib import audio, soundfiles
from vaelib.soundfiles import FFMPEG_SUFFIXES, UnreadableAudio, header, samples

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")


def ffmpeg(source, target, *options):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *options, target], check=True)
    return target


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(220, 6), tone(330, 6)], 1), RATE, subtype="FLOAT")
    return tmp_path / "a.wav"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_a_part_of_a_file_is_that_part(tmp_path, suffix):
    wave = tone(220, 8)
    soundfile.write(tmp_path / f"a{suffix}", wave, RATE)
    whole, rate = samples(tmp_path / f"a{suffix}")
    part, _ = samples(tmp_path / f"a{suffix}", 2.5, 3.0)
    assert rate == RATE and part.shape == (3 * RATE, 1) and part.dtype == np.float32
    middle = slice(int(2.5 * RATE), int(5.5 * RATE))
    assert np.corrcoef(part[:, 0], whole[middle, 0])[0, 1] > 0.99  # lossy decoders start anew at a seek
    rest, _ = samples(tmp_path / f"a{suffix}", 2.5)
    assert len(rest) == len(whole) - int(2.5 * RATE)
    assert len(samples(tmp_path / f"a{suffix}", 99.0, 3.0)[0]) == 0


def test_parts_of_an_mp3_are_those_of_the_whole(tmp_path, capfd):
    """Its decoder cannot start in the middle without a fault, and says so on the terminal."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(220, 9), RATE)
    whole, _ = samples(path)
    for start, seconds in [(0.0, 3.0), (3.0, 3.0), (2.0, 4.0), (6.0, None), (1.0, 1.0)]:
        part, _ = samples(path, start, seconds)
        end = len(whole) if seconds is None else int((start + seconds) * RATE)
        np.testing.assert_allclose(part, whole[int(start * RATE) : end], atol=1e-6)  # mpg123 rounds as memory lies
    soundfile.write(path, tone(330, 9), RATE)  # another file of that name
    np.testing.assert_allclose(samples(path, 1.0, 1.0)[0], samples(path)[0][RATE : 2 * RATE], atol=1e-6)
    assert capfd.readouterr().err == ""


@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "codec"), [(".m4a", "aac"), (".aac", "aac"), (".mp4", "aac"), (".wma", "wmav2")])
def test_ffmpeg_formats_are_read_through_ffmpeg(wav, tmp_path, suffix, codec):
    path = ffmpeg(wav, tmp_path / f"it's \n a;file{suffix}", "-c:a", codec)
    about = header(path)
    assert (about.rate, about.channels, about.format) == (RATE, 2, codec.upper())
    assert about.seconds == pytest.approx(6, abs=0.3)
    data, rate = samples(path)
    assert rate == RATE and data.shape[1] == 2 and abs(len(data) / RATE - 6) < 0.3
    wave = audio.load(path, TINY, 1.0, 3.0)
    assert abs(len(wave) / RATE - 3) < 0.1
    assert float(wave.std()) == pytest.approx(float(audio.load(wav, TINY, 1.0, 3.0).std()), rel=0.1)


def test_without_ffmpeg_the_reason_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"something")
    monkeypatch.setattr(soundfiles.shutil, "which", lambda program: None)
    for read in (header, samples):
        with pytest.raises(UnreadableAudio, match="is M4A, which needs ffmpeg: install ffmpeg, or convert it"):
            read(tmp_path / "a.m4a")


@needs_ffmpeg
@pytest.mark.parametrize("suffix", FFMPEG_SUFFIXES)
def test_a_play_list_named_like_music_opens_nothing(tmp_path, wav, suffix):
    """ffmpeg would follow it to other files, or to the network."""
    target = ffmpeg(wav, tmp_path / "secret.ts", "-c:a", "aac")
    for i, text in enumerate((f"#EXTM3U\n#EXTINF:6,\n{target}\n", f"ffconcat version 1.0\nfile '{target}'\n")):
        bad = tmp_path / f"list{i}{suffix}"
        bad.write_text(text)
        for read in (header, samples):
            with pytest.raises(UnreadableAudio):
                read(bad)


@pytest.mark.parametrize("rate", [8000, 11_127, 44_101, 192_000])
@pytest.mark.parametrize("channels", [1, 6])
def test_any_rate_and_number_of_channels(tmp_path, rate, channels):
    path = tmp_path / "a.wav"
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * rate) / rate)
    soundfile.write(path, np.stack([wave] * channels, 1), rate)
    assert (header(path).rate, header(path).channels) == (rate, channels)
    got = audio.load(path, TINY).numpy()
    want = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / RATE)
    inside = slice(RATE // 10, -RATE // 10)
    assert abs(len(got) / RATE - 4) < 0.01 and np.abs(got - want)[inside].max() < 0.01


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_any_bit_depth(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(220, 3), RATE, subtype=subtype)
    assert np.abs(audio.load(tmp_path / "a.wav", TINY).numpy() - tone(220, 3)).max() < 0.05


def test_channels_that_cancel_each_other_are_silent(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(220, 3), -tone(220, 3)], 1), RATE, subtype="FLOAT")
    with pytest.raises(UnreadableAudio, match="silent"):
        audio.load(tmp_path / "a.wav", TINY)


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", *FFMPEG_SUFFIXES])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "not there"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_text("<b>no music</b>\n" * 500), "cannot be decoded|no audio track|needs ffmpeg"),
        (lambda p: p.write_bytes(random.Random(0).randbytes(5000)), "cannot be decoded|no audio track|needs ffmpeg"),
    ],
)
def test_bad_files_have_a_reason_that_fits_a_line(tmp_path, suffix, make, reason):
    path = tmp_path / f"a{suffix}"
    make(path)
    for read in (header, samples):
        with pytest.raises(UnreadableAudio, match=reason) as e:
            read(path)
        assert str(e.value).isprintable() and len(str(e.value)) < 250 and str(tmp_path) not in str(e.value)


@pytest.mark.parametrize(
    ("seconds", "length", "step", "want"),
    [
        (20.0, 30.0, 30.0, [(0, None)]),
        (33.0, 30.0, 30.0, [(0, None)]),  # what remains is too little for a piece of its own
        (60.0, 30.0, 30.0, [(0, 30), (30, 30)]),
        (62.0, 30.0, 30.0, [(0, 30), (30, None)]),
        (70.0, 30.0, 30.0, [(0, 30), (30, 30), (40, None)]),
        (70.0, 30.0, 20.0, [(0, 30), (20, 30), (40, 30)]),
        (200.0, 30.0, 80.0, [(0, 30), (80, 30), (160, 30)]),
        (70.0, 0.0, 0.0, [(0, None)]),
    ],
)
def test_a_file_is_cut_and_nothing_is_lost(seconds, length, step, want):
    found = audio.segments(seconds, TINY, length, step)
    assert found == want
    if step <= length:
        ends = [seconds if s is None else start + s for start, s in found]
        assert ends[-1] == pytest.approx(seconds)
        assert all(start <= end + 1e-6 for (start, _), end in zip(found[1:], ends, strict=False))


def test_three_hours_are_read_in_pieces(tmp_path):
    """A piece costs what a piece costs, wherever it lies."""
    rate, hours = 8000, 3
    with soundfile.SoundFile(tmp_path / "a.wav", "w", rate, 1, "PCM_U8") as f:
        for _ in range(hours * 60):
            f.write(tone(220, 60, rate))
    places = audio.segments(header(tmp_path / "a.wav").seconds, TINY)
    assert len(places) == hours * 120 and places[-1] == (hours * 3600 - 30, 30)
    for start, seconds in places[::60]:
        data, _ = samples(tmp_path / "a.wav", start, seconds)
        assert len(data) == 30 * rate
        wave, levels = audio.read(tmp_path / "a.wav", TINY, start, seconds)
        assert len(wave) == 30 * RATE and levels.silent == 0
