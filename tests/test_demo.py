"""The demo corpus: tables, factors, determinism, and what the clips sound like."""

import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from vaelib.config import InputError
from vaelib_demo import COLUMNS, Dials, render, render_corpus
from vaelib_demo.compose import Chance, Score, compose
from vaelib_demo.factors import DESK, FACTORS, draw_factors
from vaelib_demo.tables import FOLDER, load_tables
from vaelib_demo.voice import build_bank

pytest.importorskip("tinysoundfont")
TABLES = load_tables()
GENRES = ["arabic_tarab", "english_house", "hindi_khayal", "spanish_salsa"]
SMALL = Dials(clips_per_genre=2, seconds=3)
MIDDLE = draw_factors(TABLES.genres["english_house"], TABLES, 1, 0.0, 0)[0]


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.*")) if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def bank(tmp_path_factory) -> Iterator[Path]:
    """The voices, spoken once for this file."""
    path = tmp_path_factory.mktemp("voices") / "voices.npz"
    assert build_bank(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaelib_demo.build_bank", lambda target: shutil.copyfile(path, target))
        yield path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    render_corpus(folder, SMALL, genres=GENRES, workers=1)
    return folder


@pytest.fixture(scope="module")
def studio(bank):
    """`perform` with SoundFont and voices in this process; `record(genre, **factors)` gives (sound, row)."""
    render.start_worker(bank)

    def record(genre: str, seconds: float = 4, clip: int = 0, composition: float = 1.0, **factors):
        chosen = {**MIDDLE, **factors}
        return render.perform(render.Clip(Path(), "styles", genre, clip, chosen, seconds, 0, composition))

    return record


def test_unknown_reference_in_a_table_is_named(tmp_path):
    for table in FOLDER.glob("*.csv"):
        text = table.read_text(encoding="utf-8")
        (tmp_path / table.name).write_text(text.replace(",sikah,", ",sika,"), encoding="utf-8")
    with pytest.raises(InputError, match="did you mean 'sikah'"):
        load_tables(tmp_path)


def test_factors_are_stratified_and_independent():
    n, everything = 40, []
    for genre in list(TABLES.genres.values())[::4]:
        drawn = draw_factors(genre, TABLES, n, 1.0, 0)
        assert set(drawn[0]) == set(FACTORS)
        for row in (r for r in TABLES.factors if r.kind in ("linear", "log")):
            values, low, high = np.array([d[row.factor] for d in drawn]), row.low, row.high
            if row.kind == "log":
                values, low, high = np.log(values), np.log(low), np.log(high)
            bins = np.clip(np.floor((values - low) / (high - low) * n), 0, n - 1)
            assert sorted(bins) == list(range(n)), row
        for name in ("key", "voice", "ensemble"):
            counts = np.unique([d[name] for d in drawn], return_counts=True)[1]
            assert counts.max() - counts.min() <= 1
        everything += drawn
    codes = [np.unique([d[f] for d in everything], return_inverse=True)[1] for f in FACTORS]
    correlation = np.corrcoef(codes) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 4 / np.sqrt(len(everything))


def test_fixed_factors_stand_still_and_the_others_are_drawn_as_without_them():
    genre = TABLES.genres["bangla_baul"]
    free = draw_factors(genre, TABLES, 20, 0.3, 0)
    held = draw_factors(genre, TABLES, 20, 0.3, 0, ("tempo", "ensemble"))
    assert {(d["tempo"], d["ensemble"]) for d in held} == {(1.0, "full")}
    assert len({d["tempo"] for d in free}) == 20 and len({d["ensemble"] for d in free}) == 2
    others = set(FACTORS) - {"tempo", "ensemble"}
    assert [[d[f] for f in others] for d in held] == [[d[f] for f in others] for d in free]


def test_without_composition_all_clips_of_a_genre_play_its_loop(studio, genre="hindi_khayal"):
    def written(clip: int, composition: float) -> Score:
        chance = Chance(0, TABLES.genres[genre].index, clip, composition)
        return compose(TABLES.genres[genre], MIDDLE, TABLES, 30.0, chance)

    assert written(0, 0.0) == written(7, 0.0) != written(7, 0.5) != written(7, 1.0) != written(8, 1.0)
    assert np.array_equal(*(studio(genre, clip=clip, composition=0.0)[0] for clip in (0, 7)))


def test_clips_do_not_clip_nor_start_silent(studio):
    for i, name in enumerate(list(TABLES.genres)[::3]):
        ensemble = list(TABLES.ensembles)[i % len(TABLES.ensembles)]
        sound, row = studio(name, seconds=1.5, energy=float(i % 2), ensemble=ensemble)
        assert np.abs(sound).max() < 0.99, name
        assert abs(sound.mean()) < 2e-3 and np.isfinite(sound).all(), name
        assert np.abs(sound[:1100]).max() > 0.01, name
        assert len(sound) == int(1.5 * render.RATE) + 64
        assert row["bpm"] == TABLES.genres[name].bpm


def test_energy_is_loudness_and_brightness_is_tilt(studio):
    def centroid(brightness):
        power = np.abs(np.fft.rfft(studio("spanish_bolero", brightness=brightness)[0])) ** 2
        return (np.arange(len(power)) * power).sum() / power.sum()

    soft, loud = (np.std(studio("spanish_bolero", energy=energy)[0]) for energy in (0.0, 1.0))
    assert 9 < 20 * np.log10(loud / soft) < 13
    assert centroid(-1.0) < 0.8 * centroid(0.0) < 0.64 * centroid(1.0)


# -- the corpus on disk


def test_manifest_and_files(corpus):
    table = pd.read_csv(corpus / "manifest.csv")
    assert tuple(table) == COLUMNS["styles"] and len(table) == 2 * len(GENRES) == table["seed"].nunique()
    for row in table.itertuples():
        info, genre = soundfile.info(corpus / row.path), TABLES.genres[row.genre]
        assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")
        assert info.frames == 3 * 22_050 + 64
        assert row.path == f"audio/{genre.language}/{genre.name}/{Path(row.path).name}"
        assert row.bpm == pytest.approx(genre.bpm * row.tempo, rel=1e-4)


def test_resume_keeps_what_is_there_and_any_number_of_workers_gives_the_same_bytes(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("vaelib_demo.build_bank", build_bank)
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    clips = sorted(folder.rglob("*.flac"))
    (folder / "manifest.csv").unlink()
    for path in clips[3:]:
        path.unlink()
    clips[0].write_bytes(clips[0].read_bytes()[:2000])  # half a file
    stamps = [p.stat().st_mtime_ns for p in clips[:3]]
    for _ in range(2):  # a finished corpus is not touched
        render_corpus(folder, SMALL, genres=GENRES, workers=2)
    assert files_of(folder) == files_of(corpus)
    assert [p.stat().st_mtime_ns == s for p, s in zip(clips, stamps, strict=False)] == [False, True, True]
    changes = {"other seed": {"seed": 1}, "other composition, fixed": {"composition": 0.5, "fixed": ()}}
    for message, change in changes.items():
        with pytest.raises(InputError, match=message):
            render_corpus(folder, replace(SMALL, **change), genres=GENRES)
    about = json.loads((folder / "corpus.json").read_text())
    assert about["seconds"] == 3 and about["units"]["vocal_level"] == "dB" and about["rungs"]["start"] == "loops"
    (folder / "corpus.json").write_text(json.dumps(about | {"rendering": 1}))
    with pytest.raises(InputError, match="other rendering"):
        render_corpus(folder, SMALL, genres=GENRES)


def test_the_manifest_of_the_desk_says_what_is_heard(tmp_path, studio):
    """The levels that mix the stems best are those of the manifest, and no mix is turned down or clips."""
    table = pd.read_csv(render_corpus(tmp_path, Dials("desk", clips_per_genre=6, seconds=2), workers=1))
    stems = np.array(list(render.desk_stems(2, 0).values()))
    assert np.allclose((stems**2).mean(1), (stems[0] ** 2).mean())
    assert tuple(table) == COLUMNS["desk"] and len(table) == 6
    for path, levels in zip(table["path"], table[list(DESK)].to_numpy(), strict=True):
        gains = np.linalg.lstsq(stems.T, soundfile.read(tmp_path / path)[0], rcond=None)[0]
        assert 20 * np.log10(gains) == pytest.approx(levels, abs=0.05)
    loudest, _ = render.mix(render.Clip(Path(), "desk", render.DESK_GENRE, 0, dict.fromkeys(DESK, 6.0), 2, 0, 0.0))
    assert 0.2 < np.abs(loudest).max() < 0.99


def test_without_espeak_instrumental_with_one_warning(tmp_path, monkeypatch):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "espeakng_loader.py").write_text("raise ImportError('no espeakng_loader')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    monkeypatch.setattr("vaelib_demo.build_bank", build_bank)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manifest = render_corpus(tmp_path / "corpus", Dials(clips_per_genre=1, seconds=1), genres=GENRES[:2], workers=1)
    ours = [str(w.message) for w in caught if "espeak" in str(w.message)]
    assert len(ours) == 1 and "no espeakng_loader" in ours[0]
    assert pd.read_csv(manifest)["vocal_active_share"].eq(0).all()


BAD = {"clips_per_genre": 2.5, "seconds": float("nan"), "fixed": "tempo+keys", "demo": "desks", "seed": -1}


@pytest.mark.parametrize("bad", [*({k: v} for k, v in BAD.items()), {"demo": "desk", "composition": 0.5}])
def test_bad_dials_are_refused(bad):
    with pytest.raises(InputError):
        Dials(**bad)


def test_an_unknown_genre_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="did you mean 'english_house'"):
        render_corpus(tmp_path / "corpus", SMALL, genres=["english_hause"])
    assert not (tmp_path / "corpus").exists()


def test_a_corpus_is_named_by_its_dials():
    assert Dials().name == "demo-40x6s-c0-v0.3-tempo-s0" and Dials("desk").name == "desk-1500x6s-s0"
    assert Dials("styles", 8, 30.0, 0.5, 0.25, "key+tempo", 3).name == "demo-8x30s-c0.5-v0.25-tempo+key-s3"
    assert Dials(fixed=()) == Dials(fixed="") and Dials(fixed="").name == "demo-40x6s-c0-v0.3-s0"


def test_rungs_of_the_ladder():
    free = Dials(variation=1, fixed=())
    assert [d.rung("start") for d in (Dials("desk"), Dials(), free)] == ["desk", "loops", "loops, full range"]
    found = [replace(free, composition=c).rung("anywhere") for c in (0, 0.5, 1)]
    assert found == ["loops, cut anywhere", "composition 0.5, variation 1, nothing fixed, cut anywhere", "composed"]
    assert replace(free, composition=1).rung("start") == "composed, from the start"
    assert Dials().rung("anywhere") == "loops, cut anywhere, variation 0.3, tempo fixed"
