"""The front end against librosa, decoding of every format, scaling, and the way back to sound."""

import dataclasses

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, TINY, tone

from vaelib import audio
from vaelib.config import COMPACT, FULL
from vaelib.soundfiles import AUDIO_SUFFIXES, FFMPEG_SUFFIXES, UnreadableAudio, header

SOUND = tone(220, 3) + 0.05 * librosa.chirp(fmin=60, fmax=10_000, sr=RATE, length=3 * RATE).astype(np.float32)


@pytest.mark.parametrize("fe", [FULL, COMPACT], ids=lambda fe: fe.name)
def test_log_mel_equals_librosa(fe):
    ours = audio.log_mel(torch.from_numpy(SOUND), fe).numpy()
    theirs = librosa.feature.melspectrogram(
        y=SOUND, sr=RATE, n_fft=fe.n_fft, hop_length=fe.hop, n_mels=fe.n_mels, fmax=fe.f_max, pad_mode="constant"
    )
    theirs = librosa.power_to_db(theirs, amin=audio.FLOOR, top_db=None)
    heard = theirs > -99
    assert ours.shape == theirs.shape == (fe.n_mels, len(SOUND) // fe.hop + 1) and heard.mean() > 0.9
    assert np.abs(ours - theirs)[heard].max() < 0.1
    assert ours.min() >= -100


def test_silence_is_the_floor():
    assert (audio.log_mel(torch.zeros(RATE), COMPACT) == -100).all()


def write_as(path, data, rate):
    """Opus knows a few rates only, and libsndfile does not know its suffix."""
    if path.suffix == ".opus":
        data, rate = librosa.resample(data, orig_sr=rate, target_sr=48_000, axis=0), 48_000
        soundfile.write(path, data, rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, data, rate, format={".oga": "OGG", ".aif": "AIFF"}.get(path.suffix))


@pytest.mark.parametrize("suffix", [s for s in AUDIO_SUFFIXES if s not in FFMPEG_SUFFIXES])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (RATE, 2), (44_100, 2), (48_000, 1), (16_000, 1)])
def test_every_format_rate_and_channel_count_decodes_alike(tmp_path, suffix, rate, channels):
    path = tmp_path / f"a{suffix}"
    write_as(path, np.stack([tone(330, 4, rate)] * channels, 1), rate)
    wave = audio.load(path, TINY)
    assert wave.dtype == torch.float32 and wave.ndim == 1 and abs(len(wave) / RATE - 4) < 0.1
    want = torch.from_numpy(tone(330, 4))  # the faint noise differs, the music does not
    n = min(len(wave), len(want))
    assert torch.corrcoef(torch.stack([wave[:n], want[:n]]))[0, 1] > 0.99
    assert float(wave.std()) == pytest.approx(float(want.std()), rel=0.02)
    about = header(path)
    assert (about.rate, about.channels) == (48_000 if suffix == ".opus" else rate, channels)
    assert audio.frames_of(about.seconds, TINY) == pytest.approx(len(wave) // TINY.hop + 1, abs=1)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(220, 2), tone(550, 2, seed=1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    assert np.allclose(audio.load(tmp_path / "a.wav", TINY), (left + right) / 2)


def write(path, samples, subtype="FLOAT"):
    soundfile.write(path, np.asarray(samples, np.float32), RATE, subtype=subtype)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "not there"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_text("not music " * 500), "cannot be decoded"),
        (lambda p: write(p, np.where(np.arange(2 * RATE) == 99, np.nan, tone(220, 2))), "NaN"),
        (lambda p: write(p, np.where(np.arange(2 * RATE) == 99, np.inf, tone(220, 2))), "NaN or infinite"),
        (lambda p: write(p, tone(220, 1)), "too short: 1.00 s"),
        (lambda p: write(p, np.zeros(2 * RATE)), "silent"),
    ],
)
def test_unusable_files_say_why(tmp_path, make, reason):
    make(tmp_path / "a.wav")
    with pytest.raises(UnreadableAudio, match=reason):
        audio.load(tmp_path / "a.wav", TINY)


def test_a_clip_a_hair_short_is_padded_to_one_window(tmp_path):
    write(tmp_path / "a.wav", tone(220, 2)[: int(TINY.min_samples * 0.985)])
    wave = audio.load(tmp_path / "a.wav", TINY)
    assert len(wave) == TINY.min_samples and not wave[-100:].any()
    assert audio.log_mel(wave, TINY).shape[1] == TINY.frames
    assert audio.frames_of(header(tmp_path / "a.wav").seconds, TINY) == TINY.frames


def test_a_30_second_clip_fills_the_full_window(tmp_path):
    write(tmp_path / "a.wav", tone(220, 30))
    assert (
        audio.frames_of(header(tmp_path / "a.wav").seconds, FULL)
        == 1293
        == audio.log_mel(audio.load(tmp_path / "a.wav", FULL), FULL).shape[1]
    )
    write(tmp_path / "b.wav", tone(220, 29))
    with pytest.raises(UnreadableAudio, match=r"too short: 29.00 s.*window of the 'full' front end is 30.00 s"):
        audio.segments(header(tmp_path / "b.wav").seconds, FULL)


def random_clips(n=5):
    db = np.random.default_rng(0).normal(-40, 12, (n, 16, 30)).astype(np.float32)
    return db, *np.transpose([audio.level_and_tilt(clip) for clip in db])


@pytest.mark.parametrize("detilt", [False, True])
def test_scaler_round_trip_and_clipping(detilt):
    db, level, tilt = random_clips()
    scaler = audio.Scaler.fit(db, level, tilt, detilt)
    x = scaler.transform(db, level, tilt)
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    inside = (x > 0) & (x < 1)
    assert inside.mean() > 0.98
    for i, clip in enumerate(x):
        back = scaler.inverse(clip, level[i], tilt[i])
        assert np.abs(back - db[i])[inside[i]].max() < 1e-3
    assert audio.Scaler.from_dict(scaler.to_dict()) == scaler
    loud = scaler.transform(db + 500, level, tilt)
    assert (loud == 1).all()


def test_scaler_keeps_at_most_80_db():
    db = np.linspace(-100, 20, 16 * 1000).reshape(1, 16, 1000)
    scaler = audio.Scaler.fit(db, np.zeros(1), np.zeros(1))
    assert scaler.high_db - scaler.low_db == pytest.approx(80) and scaler.high_db == pytest.approx(20, abs=0.5)


def test_detilt_removes_exactly_level_and_slope():
    db, level, tilt = random_clips()
    line = 7 + 20 * np.linspace(-0.5, 0.5, 16)[:, None]
    tilted = db + line
    found = np.transpose([audio.level_and_tilt(clip) for clip in tilted])
    assert np.allclose(found, [level + 7, tilt + 20], atol=1e-3)
    scaler = audio.Scaler(-50, 50, detilt=True)
    assert np.allclose(scaler.transform(tilted, *found), scaler.transform(db, level, tilt), atol=1e-4)
    flat = scaler.inverse(scaler.transform(db, level, tilt)[0])
    assert np.allclose(audio.level_and_tilt(flat), 0, atol=1e-2)


@pytest.mark.parametrize("fe", [COMPACT, FULL], ids=lambda fe: fe.name)
def test_to_sound_roughly_gives_the_spectrogram_back(fe):
    db, other = (audio.log_mel(torch.from_numpy(w), fe).numpy() for w in (SOUND, tone(392, 3)))
    wave = audio.to_sound(db, fe)
    assert wave.dtype == np.float32 and np.abs(wave).max() == pytest.approx(0.9)
    again = audio.log_mel(torch.from_numpy(wave), fe).numpy()
    frames = again.shape[1]
    same, null = (np.corrcoef(x[:, :frames].ravel(), again.ravel())[0, 1] for x in (db, other))
    assert same > 0.85 and null < same - 0.1


def test_mel_frequencies_are_the_bands_peaks():
    fe = dataclasses.replace(FULL, n_mels=40)
    filters = librosa.filters.mel(sr=RATE, n_fft=16_384, n_mels=40, fmax=fe.f_max)
    peaks = filters.argmax(1) * RATE / 16_384
    assert np.allclose(audio.mel_frequencies(fe), peaks, atol=2)


@pytest.mark.parametrize("fe", [COMPACT, FULL], ids=lambda fe: fe.name)
def test_the_way_back_from_mel_bands_is_that_of_the_whole_bank(fe):
    bank = audio._mel_transform(fe).mel_scale.fb.T  # (mel, bin)
    mel = bank @ torch.rand(bank.shape[1], 9)
    linear = mel.mean().expand(bank.shape[1], 9)
    for _ in range(20):
        linear = linear * (bank.T @ (mel / (bank @ linear).clamp_min(audio.FLOOR)))
        linear = linear / bank.sum(0)[:, None].clamp_min(audio.FLOOR)
    torch.testing.assert_close(audio._linear(mel, fe, iterations=20), linear, rtol=1e-4, atol=1e-7)
