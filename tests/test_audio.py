"""Decoding of every kind of file, the front end against librosa, cutting, scaling, and the way back to sound."""

import dataclasses
import random
import struct

import av
import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, TINY, tone

from vaelib import audio
from vaelib.audio import UnreadableAudio, header, samples
from vaelib.config import COMPACT, FULL

SOUND = tone(220, 3) + 0.05 * librosa.chirp(fmin=60, fmax=10_000, sr=RATE, length=3 * RATE).astype(np.float32)


def write(path, data, rate=RATE, subtype="FLOAT"):
    soundfile.write(path, np.asarray(data, np.float32), rate, subtype=subtype)
    return path


KINDS = [("wav", 8000, 6), ("flac", 44_100, 2), ("ogg", 48_000, 1), ("mp3", 44_100, 2), ("aiff", RATE, 1)]


@pytest.mark.parametrize(("suffix", "rate", "channels"), [*KINDS, ("caf", 44_101, 2)])
def test_every_format_rate_and_channel_count_decodes_alike(tmp_path, suffix, rate, channels):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone(330, 4, rate)] * channels, 1), rate)
    wave, want = audio.load(path, TINY), torch.from_numpy(tone(330, 4))  # the faint noise differs, the music does not
    assert wave.dtype == torch.float32 and wave.ndim == 1 and abs(len(wave) / RATE - 4) < 0.1
    n = min(len(wave), len(want))
    assert torch.corrcoef(torch.stack([wave[:n], want[:n]]))[0, 1] > 0.99
    assert float(wave.std()) == pytest.approx(float(want.std()), rel=0.02)
    about = header(path)
    assert (about.rate, about.channels) == (rate, channels)
    assert audio.frames_of(about.seconds, TINY) == pytest.approx(len(wave) // TINY.hop + 1, abs=1)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(220, 2), tone(550, 2, seed=1)
    assert np.allclose(audio.load(write(tmp_path / "a.wav", np.stack([left, right], 1)), TINY), (left + right) / 2)


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_a_part_of_a_file_is_that_part(tmp_path, suffix):
    path, wave = tmp_path / f"a{suffix}", tone(220, 8)
    soundfile.write(path, wave, RATE)
    whole, part = samples(path)[0], samples(path, 2.5, 3.0)[0]
    middle = slice(int(2.5 * RATE), int(5.5 * RATE))
    assert part.shape == (3 * RATE, 1) and part.dtype == np.float32
    assert np.corrcoef(part[:, 0], whole[middle, 0])[0, 1] > 0.99  # lossy decoders start anew at a seek
    assert len(samples(path, 2.5)[0]) == len(whole) - int(2.5 * RATE) and len(samples(path, 99.0, 3.0)[0]) == 0


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


def encode(path, codec, container, data, rate=44_100):
    """Write (samples,) or (channels, samples) with FFmpeg."""
    data = np.atleast_2d(data)
    layout = ["mono", "stereo"][len(data) - 1]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data, np.float32), "fltp", layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in av.AudioResampler(stream.codec_context.format, layout, rate).resample(frame):
            fifo.write(part)
        while fifo.samples:
            file.mux(stream.encode(fifo.read(stream.codec_context.frame_size or 1024, partial=True)))
        file.mux(stream.encode(None))
    return path


TRACKS = [("aac", "mp4"), ("aac", "adts"), ("alac", "mp4"), ("wmav2", "asf"), ("wavpack", "wv"), ("ac3", "ac3"),
          ("libopus", "webm"), ("aac", "matroska"), ("tta", "tta"), ("pcm_s16le", "mov")]  # fmt: skip


@pytest.mark.parametrize(("codec", "container"), TRACKS)
def test_the_content_decides_not_the_suffix(tmp_path, codec, container):
    """Parts of what FFmpeg decodes are those of the whole, whatever the file is called."""
    rate = 48_000 if codec == "libopus" else 44_100
    path = encode(tmp_path / "it's \n a;file.wav", codec, container, tone(220, 6, rate), rate)
    about, (whole, _) = header(path), samples(path)
    assert (about.rate, about.channels, about.format) == (rate, 1, codec.removeprefix("lib").upper())
    assert about.seconds * rate == len(whole) and about.seconds == pytest.approx(6, abs=0.1)
    for start, seconds in ((1.0, 3.0), (4.0, 1.0), (2.0, None)):
        end = len(whole) if seconds is None else int((start + seconds) * rate)
        np.testing.assert_array_equal(samples(path, start, seconds)[0], whole[int(start * rate) : end])
    assert float(audio.load(path, TINY, 1.0, 3.0).std()) == pytest.approx(tone(220, 6)[RATE : 4 * RATE].std(), rel=0.05)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a sound of 3 s in several formats."""
    folder, found = tmp_path_factory.mktemp("good"), {}
    for kind, rate in [("wav", RATE), ("flac", RATE), ("ogg", RATE), ("aiff", RATE), ("mp3", 44_100), ("opus", 48_000)]:
        how = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
        soundfile.write(folder / f"a.{kind}", tone(220, 3, rate), rate, **how)
        found[kind] = (folder / f"a.{kind}").read_bytes()
    soundfile.write(folder / "two.ogg", np.stack([tone(220, 3)] * 2, 1), RATE)
    for name, (codec, kind) in {"m4a": ("aac", "mp4"), "aac": ("aac", "adts")}.items():
        encode(folder / name, codec, kind, tone(220, 3, 44_100))
    with av.open(str(folder / "mute"), "w", format="mp4") as file:
        video = file.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        file.mux([*video.encode(av.VideoFrame(64, 64, "yuv420p")), *video.encode(None)])
    noise = np.random.default_rng(0).normal(0, 0.2, 2 * RATE)
    soundfile.write(folder / "vbr.mp3", np.r_[np.zeros(RATE), noise], RATE, bitrate_mode="VARIABLE")
    return found | {path.name.removesuffix(".mp3"): path.read_bytes() for path in folder.glob("*") if path.name != "a"}


def id3(size):
    return b"ID3\3\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def patched(content, at, value):
    return content[:at] + value + content[at + len(value) :]


def of_size(wav, size):
    at = wav.index(b"data") + 4
    return patched(patched(wav, 4, size), at, size)


ODD = {  # how a file comes about, and its seconds, or the reason why it cannot be used
    "piped flac": (lambda g: patched(g["flac"], 21, bytes([g["flac"][21] & 0xF0, 0, 0, 0, 0])), 3),
    "flac that claims more": (lambda g: patched(g["flac"], 22, struct.pack(">I", 9 * RATE)), 3),
    "flac that claims less": (lambda g: patched(g["flac"], 22, struct.pack(">I", RATE)), 3),
    "half a flac": (lambda g: g["flac"][: len(g["flac"]) // 2], 1.4),
    "half an mp3": (lambda g: g["mp3"][: len(g["mp3"]) // 2], 1.5),
    **{f"{kind} twice": (lambda g, kind=kind: g[kind] * 2, 6) for kind in ("flac", "mp3", "aac", "ogg", "opus")},
    "ogg, then another with two channels": (lambda g: g["ogg"] + g["two.ogg"], "cannot be decoded"),
    "wav twice": (lambda g: g["wav"] * 2, "several recordings"),
    "aiff twice": (lambda g: g["aiff"] * 2, "several recordings"),
    "wav from a pipe": (lambda g: of_size(g["wav"], b"\xff" * 4), 3),
    "wav that was never closed": (lambda g: of_size(g["wav"], bytes(4)), 3),
    "wav that claims less": (lambda g: of_size(g["wav"], struct.pack("<I", 2 * RATE)), 3),
    "a picture before flac": (lambda g: id3(200_000) + g["flac"], 3),
    "a picture before mp3 without length": (lambda g: id3(900_000) + g["mp3"].replace(b"Info", bytes(4)), 3),
    "vbr mp3 without length": (lambda g: g["vbr"].replace(b"Xing", bytes(4)), 3),
    "tags before aac": (lambda g: id3(3000) + g["aac"], 3),
    "zeros before mp3": (lambda g: bytes(3000) + g["mp3"], 3),
    "m4a that its shop has locked": (lambda g: g["m4a"].replace(b"mp4a", b"drms"), "copy-protected"),
    "half an m4a": (lambda g: g["m4a"][: len(g["m4a"]) // 2], "cannot be decoded"),
    "video without sound": (lambda g: g["mute"], "no audio track"),
    "a head alone": (lambda g: g["wav"][:44], "no sound"),
    "a page of the web": (lambda g: b"<!DOCTYPE html><html><body>" + b"<p>Not found</p>" * 300, "cannot be decoded"),
    "a play list": (lambda g: b"#EXTM3U\n#EXTINF:6,\n/etc/hosts\n", "cannot be decoded"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("suffix", [".mp3", ".mkv", ".gsm"])
def test_odd_files_are_as_long_as_what_can_be_heard_or_say_why(tmp_path, good, name, suffix):
    make, wanted = ODD[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make(good))
    if isinstance(wanted, str):
        with pytest.raises(UnreadableAudio, match=wanted):
            header(path)
        return
    about, (data, rate) = header(path), samples(path)
    assert about.seconds == pytest.approx(wanted, abs=0.2) and len(data) / rate == pytest.approx(about.seconds, abs=0.1)
    assert np.abs(data[-rate:]).max() > 0.1 and np.abs(data).max() < 1.5


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "not there"),
        (b"", "empty"),
        (b"<b>no music</b>\n" * 500, "cannot be decoded|no audio track"),
        (random.Random(0).randbytes(5000), "cannot be decoded|no audio track"),
    ],
    ids=["missing", "empty", "text", "noise"],
)
def test_bad_files_have_a_reason_that_fits_a_line(tmp_path, suffix, content, reason):
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    for read in (header, samples):
        with pytest.raises(UnreadableAudio, match=reason) as e:
            read(path)
        assert str(e.value).isprintable() and len(str(e.value)) < 250 and str(tmp_path) not in str(e.value)


def test_unusable_sounds_say_why(tmp_path):
    for wave, reason in (
        (np.where(np.arange(2 * RATE) == 99, np.nan, tone(220, 2)), "NaN"),
        (np.where(np.arange(2 * RATE) == 99, np.inf, tone(220, 2)), "NaN or infinite"),
        (tone(220, 1), r"too short: 1\.00 s"),
        (np.zeros(2 * RATE), "silent"),
        (np.full(2 * RATE, 0.5), "silent"),
        (32_767 * tone(220, 3), "samples up to .* where 1 is full scale"),
        (np.stack([tone(220, 3), -tone(220, 3)], 1), "cancel each other"),
        (np.stack([tone(220, 3), tone(330, 3), -tone(220, 3), -tone(330, 3)], 1), "cancel each other"),
    ):
        with pytest.raises(UnreadableAudio, match=reason):
            audio.load(write(tmp_path / "a.wav", wave), TINY)


def test_a_clip_a_hair_short_is_padded_to_one_window(tmp_path):
    path = write(tmp_path / "a.wav", tone(220, 2)[: int(TINY.min_samples * 0.985)])
    wave = audio.load(path, TINY)
    assert len(wave) == TINY.min_samples and not wave[-100:].any()
    assert audio.log_mel(wave, TINY).shape[1] == TINY.frames == audio.frames_of(header(path).seconds, TINY)


@pytest.mark.parametrize(
    ("seconds", "length", "step", "want"),
    [
        (33, 30, 30, [(0, None)]),  # what remains is too little for a piece of its own
        (62, 30, 30, [(0, 30), (30, None)]),
        (70, 30, 30, [(0, 30), (30, 30), (40, None)]),
        (70, 30, 20, [(0, 30), (20, 30), (40, 30)]),
        (200, 30, 80, [(0, 30), (80, 30), (160, 30)]),
        (70, 0, 0, [(0, None)]),
    ],
)
def test_a_file_is_cut_and_nothing_is_lost(seconds, length, step, want):
    assert audio.segments(seconds, TINY, length, step) == want


@pytest.mark.parametrize("fe", [FULL, COMPACT], ids=lambda fe: fe.name)
def test_log_mel_equals_librosa(fe):
    ours = audio.log_mel(torch.from_numpy(SOUND), fe).numpy()
    theirs = librosa.feature.melspectrogram(
        y=SOUND, sr=RATE, n_fft=fe.n_fft, hop_length=fe.hop, n_mels=fe.n_mels, fmax=fe.f_max, pad_mode="constant"
    )
    theirs = librosa.power_to_db(theirs, amin=audio.FLOOR, top_db=None)
    loud = theirs > -99
    assert ours.shape == theirs.shape == (fe.n_mels, len(SOUND) // fe.hop + 1) and loud.mean() > 0.9
    assert np.abs(ours - theirs)[loud].max() < 0.1 and ours.min() >= -100
    assert (audio.log_mel(torch.zeros(RATE), fe) == -100).all()


def test_mel_frequencies_are_the_bands_peaks():
    filters = librosa.filters.mel(sr=RATE, n_fft=16_384, n_mels=40, fmax=FULL.f_max)
    found = audio.mel_frequencies(dataclasses.replace(FULL, n_mels=40))
    assert np.allclose(found, filters.argmax(1) * RATE / 16_384, atol=2)


@pytest.mark.parametrize("detilt", [False, True])
def test_scaler_round_trip_clipping_and_what_detilt_removes(detilt):
    db = np.random.default_rng(0).normal(-40, 12, (5, 16, 30)).astype(np.float32)
    level, tilt = np.transpose([audio.level_and_tilt(clip) for clip in db])
    scaler = audio.Scaler.fit(db, level, tilt, detilt)
    x = scaler.transform(db, level, tilt)
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    inside = (x > 0) & (x < 1)
    assert inside.mean() > 0.98
    for i, clip in enumerate(x):
        back = scaler.inverse(clip, level[i], tilt[i])
        assert np.abs(back - db[i])[inside[i]].max() < 1e-3
    assert audio.Scaler.from_dict(scaler.to_dict()) == scaler
    assert (scaler.transform(db + 500, level, tilt) == 1).all()
    tilted = db + 7 + 20 * np.linspace(-0.5, 0.5, 16)[:, None]
    found = np.transpose([audio.level_and_tilt(clip) for clip in tilted])
    assert np.allclose(found, [level + 7, tilt + 20], atol=1e-3)
    assert np.allclose(scaler.transform(tilted, *found), x, atol=1e-4) == detilt
    wide = audio.Scaler.fit(np.linspace(-100, 20, 16_000).reshape(1, 16, 1000), np.zeros(1), np.zeros(1))
    assert wide.high_db - wide.low_db == pytest.approx(80) and wide.high_db == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("fe", [COMPACT, FULL], ids=lambda fe: fe.name)
def test_to_sound_roughly_gives_the_spectrogram_back(fe):
    db, other = (audio.log_mel(torch.from_numpy(w), fe).numpy() for w in (SOUND, tone(392, 3)))
    wave = audio.to_sound(db, fe)
    assert wave.dtype == np.float32 and np.abs(wave).max() == pytest.approx(0.9)
    again = audio.log_mel(torch.from_numpy(wave), fe).numpy()
    frames = again.shape[1]
    same, null = (np.corrcoef(x[:, :frames].ravel(), again.ravel())[0, 1] for x in (db, other))
    assert same > 0.85 and null < same - 0.1
