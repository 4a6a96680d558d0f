"""Finding clips by manifest or folder tree, refusing bad manifests, quarantine, grouped and stratified splits."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, TINY, tone

from vaelib import corpus
from vaelib.config import InputError
from vaelib.corpus import SPLITS, choose_split, quarantine, read_corpus, split_clips
from vaelib.preprocess import build_store
from vaelib.soundfiles import Header, UnreadableAudio
from vaelib.store import open_store


def touch(root, *paths, content="x"):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def manifest(root, text):
    return touch(root, "manifest.csv", content=text)


def test_folder_tree_gives_language_and_genre(tmp_path):
    found = read_corpus(touch(tmp_path, "en/rock/b.MP3", "en/rock/a.flac", "jazz/c.ogg", "d.wav", "en/rock/cover.jpg"))
    assert found.table[["path", "language", "genre"]].to_numpy().tolist() == [
        ["d.wav", "unlabelled", "unlabelled"],
        ["en/rock/a.flac", "en", "rock"],
        ["en/rock/b.MP3", "en", "rock"],
        ["jazz/c.ogg", "unlabelled", "jazz"],
    ]
    assert found.name == tmp_path.name and found.factors == () and set(found.table["family"]) == {"unlabelled"}


def test_manifest_gives_labels_factors_and_order(tmp_path):
    touch(tmp_path, "b.wav", "a.wav", "not_listed.wav")
    rows = "b.wav,en,90,7,sad,1\na.wav,,120,8,glad,2\na.wav,es,1,1,x,1\n"  # the second a.wav is dropped
    manifest(tmp_path, "path,language,tempo,artist,mood,seed\n" + rows)
    found = read_corpus(tmp_path)
    assert found.table[["path", "language"]].to_numpy().tolist() == [["a.wav", "unlabelled"], ["b.wav", "en"]]
    assert found.factors == ("tempo",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n/etc/passwd\n", "line 2: '/etc/passwd' leaves the corpus"),
        ("path\na.wav\nb/../../c.wav\n", "line 3: .*leaves the corpus"),
        ("path,language\na.wav,en\n,es\n", "line 3: the path is empty"),
        ("file\na.wav\n", "no rows with a `path` column"),
        ("path,language\n", "no rows with a `path` column"),
        ("", "not a readable CSV"),
        ('path\n"a.wav\n', "not a readable CSV"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_corpus(manifest(touch(tmp_path, "a.wav"), text))


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no corpus at"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no audio in"):
        read_corpus(touch(tmp_path, "readme.txt"))


def test_fingerprint_follows_names_labels_and_content_only(tmp_path):
    def fingerprint(folder, **files):
        touch(tmp_path / folder, "a/x.wav", "b/y.wav")
        for path, content in files.items():
            touch(tmp_path / folder, path.replace("__", "/") + ".wav", content=content)
        return read_corpus(tmp_path / folder).fingerprint()

    first = fingerprint("one")
    assert first == fingerprint("two")
    different = [fingerprint("three", a__x="y"), fingerprint("four", a__x="xx"), fingerprint("five", a__z="x")]
    assert len({first, *different}) == 4


def test_quarantine_lists_reasons_and_goes_on(tmp_path, monkeypatch):
    found = read_corpus(touch(tmp_path, "a.wav", "b.wav", "c.wav"))

    def told(path):
        if path.name == "b.wav":
            raise UnreadableAudio("is empty, a comma too")
        return Header(4.0 if path.name == "a.wav" else 10.0, 8000, 2, "MP3")

    monkeypatch.setattr(corpus, "header", told)
    table, bad = quarantine(found, TINY, tmp_path / "out" / "rejected.csv", length=4.0, step=4.0)
    assert table["path"].tolist() == ["a.wav", "c.wav", "c.wav", "c.wav"] and set(table["format"]) == {"MP3"}
    assert table["start_s"].tolist() == [0, 0, 4, 6] and table["seconds"].fillna(-1).tolist() == [-1, 4, 4, -1]
    assert table["n_frames"].tolist() == [4 * 22_050 // 2048 + 1] * 4
    assert bad == [("b.wav", "is empty, a comma too")]
    assert pd.read_csv(tmp_path / "out" / "rejected.csv").to_numpy().tolist() == [list(bad[0])]


def clips(genres=5, per_genre=40, per_artist=0, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"genre": np.repeat([f"g{i}" for i in range(genres)], per_genre)})
    table["path"] = [f"{i:04d}.wav" for i in range(len(table))]
    if per_artist:
        table["artist"] = rng.integers(0, len(table) // per_artist, len(table))
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def test_split_is_stratified_exactly():
    table = clips()
    counts = pd.crosstab(table["genre"], split_clips(table))
    assert (counts[["train", "validation", "test"]].to_numpy() == [28, 4, 8]).all()


@pytest.mark.parametrize("column", ["artist", "track"])
def test_split_never_tears_a_group_and_keeps_the_shares(column):
    table = clips(per_artist=4).rename(columns={"artist": column})
    split = split_clips(table)
    assert pd.Series(split).groupby(table[column]).nunique().max() == 1
    for name, share in SPLITS.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("missing", [None, ""])
def test_clips_without_an_artist_are_no_group(missing):
    table = clips().assign(artist=missing)
    table.loc[:9, "artist"] = "known"
    split = split_clips(table)
    assert len(set(split[:10])) == 1
    assert (split[10:] == "train").mean() == pytest.approx(0.7, abs=0.05) and len(set(split[10:])) == 3


def test_split_depends_on_the_seed_and_not_on_the_order():
    table = clips()
    split = split_clips(table, seed=1)
    mixed = table.sample(frac=1, random_state=3)
    assert (split_clips(mixed.reset_index(drop=True), seed=1) == split[mixed.index]).all()
    assert (split_clips(table, seed=2) != split).any()


@pytest.mark.parametrize("per_genre", [1, 2, 3, 6])
def test_every_class_is_trained_on_and_tested_before_validated(per_genre):
    counts = pd.crosstab((table := clips(per_genre=per_genre))["genre"], split_clips(table))
    assert (counts["train"] > 0).all()
    assert ("test" in counts) == (per_genre > 1) and ("validation" in counts) == (per_genre >= 3)


# --- real, messy collections ---

NAMES = [
    "with space.wav", "new\nline.wav", "it's \"quoted\".wav", "🎵 emoji.wav", "שיר.wav", "أغنية.wav",
    "<b onclick=x>.wav", "a,b;c\t.wav", "-rf.wav", "%2e%2e.wav", "CASE.wav", "case.wav", "..dots...wav",
    "x" * 240 + ".wav",
]  # fmt: skip


def test_hostile_names_are_kept_to_the_letter(tmp_path, data):
    root = tmp_path / 'my <music> "אוסף" 🎶'
    for i, name in enumerate(NAMES):
        folder = root / ("rock & <i>roll" if i % 2 else "ジャズ\n")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(200 + 40 * i, 3), RATE)
    bad = os.fsencode(root) + b"/latin\xe9.wav"
    shutil.copy(root / "rock & <i>roll" / "new\nline.wav", bad)
    found = read_corpus(root)
    assert sorted(p.rsplit("/", 1)[1] for p in found.table["path"]) == sorted(NAMES)
    assert found.left_out == (("latin\\xe9.wav", "has a name that is not UTF-8; rename it, e.g. with convmv"),)
    store = open_store(build_store(found, TINY))
    assert store.table["path"].tolist() == found.table["path"].tolist()
    assert store.classes("genre") == sorted({"rock & <i>roll", "ジャズ\n"})
    rejected = pd.read_csv(store.path.with_suffix(".rejected.csv"))
    assert rejected["path"].tolist() == ["latin\\xe9.wav"]
    assert all(store.load(row).numel() for row in store.rows())


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path, "music/rock/a.wav", "elsewhere/jazz/b.wav")
    os.symlink("..", tmp_path / "music" / "rock" / "loop")
    os.symlink(tmp_path / "elsewhere" / "jazz", tmp_path / "music" / "jazz")
    os.symlink(tmp_path / "elsewhere" / "jazz", tmp_path / "music" / "jazz again")
    os.symlink("nowhere.wav", tmp_path / "music" / "broken.wav")
    os.mkfifo(tmp_path / "music" / "pipe.wav")
    (tmp_path / "music" / "folder.wav").mkdir()
    found = read_corpus(tmp_path / "music")
    assert found.table["path"].tolist() == ["jazz/b.wav", "rock/a.wav"]
    assert [p for p, _ in found.left_out] == ["broken.wav", "pipe.wav"]


def test_hidden_files_and_those_of_other_kinds_are_not_music(tmp_path):
    found = read_corpus(touch(tmp_path, "a.wav", "._a.wav", ".Trash/b.wav", "cover.jpg", "notes.txt", "b.flac.part"))
    assert found.table["path"].tolist() == ["a.wav"] and not found.left_out


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        (
            "{language}/{genre}/{artist}/{album}/{track}",
            ["en", "rock", "The A", "First", "en/rock/The A/First/01 Song"],
        ),
        ("*/{genre}/{artist}/*/{title}", [None, "rock", "The A", None, None]),
        ("*/{genre}/{artist}/*/{number} {track}", [None, "rock", "The A", None, "en/rock/The A/First/Song"]),
    ],
)
def test_a_pattern_names_the_levels(tmp_path, pattern, want):
    found = read_corpus(touch(tmp_path, "en/rock/The A/First/01 Song.mp3", "stray.wav"), labels=pattern)
    row = found.table.set_index("path").loc["en/rock/The A/First/01 Song.mp3"]
    names = ("language", "genre", "artist", "album", "track")
    fallback = {"language": "unlabelled", "track": row.name}
    assert [row.get(n, None) for n in names] == [
        fallback.get(n) if w is None else w for n, w in zip(names, want, strict=True)
    ]
    assert "1 of 2 files do not fit" in found.notes[0]
    assert found.table.set_index("path").loc["stray.wav", "genre"] == "unlabelled"


@pytest.mark.parametrize(
    "pattern", ["genre/track", "{genre}/{genre}", "{genre", "{path}", "{split}/{x}", "{}/x", "{1a}"]
)
def test_bad_patterns_are_refused(tmp_path, pattern):
    with pytest.raises(InputError, match=r"pattern|cannot be a label"):
        read_corpus(touch(tmp_path, "a/b.wav"), labels=pattern)


def test_a_pattern_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file of .* fits '.*track\}', for example 'a/b.wav'"):
        read_corpus(touch(tmp_path, "a/b.wav"), labels="{language}/{genre}/{track}")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_may_lie_elsewhere_and_be_parquet(tmp_path, kind):
    touch(tmp_path, "music/a.wav", "music/b.wav", "music/c.wav")
    table = pd.DataFrame({"path": ["b.wav", "a.wav", "gone.wav"], "genre": ["x", None, "y"], "tempo": [90, 100, 110],
                          "split": ["train", "test", "test"]})  # fmt: skip
    if kind == "csv":
        table.to_csv(tmp_path / "list.csv", index=False)
    else:
        table.assign(tempo=table["tempo"].astype("Int64"), tags=[["a"], [], ["b"]]).to_parquet(
            tmp_path / "list.parquet"
        )
    found = read_corpus(tmp_path / "music", manifest=tmp_path / f"list.{kind}")
    assert found.table["path"].tolist() == ["a.wav", "b.wav", "gone.wav"] and found.factors == ("tempo",)
    assert found.table["genre"].tolist() == ["unlabelled", "x", "y"]
    assert found.left_out == (("c.wav", f"is not in list.{kind}; add a row to use it"),)
    assert "split" not in found.table and "split" in found.notes[0]


def test_paths_leave_the_folder_only_when_allowed(tmp_path):
    touch(tmp_path, "music/a.wav", "other/b.wav")
    os.symlink(tmp_path / "other", tmp_path / "music" / "link")
    os.symlink(tmp_path / "other" / "b.wav", tmp_path / "music" / "file.wav")
    os.symlink(tmp_path / "music" / "round.wav", tmp_path / "music" / "round.wav")
    for path in (str(tmp_path / "other" / "b.wav"), "../other/b.wav", "link/b.wav", "file.wav", "round.wav"):
        manifest(tmp_path / "music", f"path\na.wav\n{path}\n")
        with pytest.raises(InputError, match=r"line 3: .* leaves the corpus folder; .*--allow-outside"):
            read_corpus(tmp_path / "music")
        assert read_corpus(tmp_path / "music", allow_outside=True).table["path"].isin([path]).any()


def test_links_to_what_is_in_the_folder_stay_inside(tmp_path):
    touch(tmp_path, "a.wav")
    os.symlink(tmp_path / "a.wav", tmp_path / "b.wav")
    manifest(tmp_path, "path\na.wav\nb.wav\n")
    assert read_corpus(tmp_path).table["path"].tolist() == ["a.wav", "b.wav"]


@pytest.mark.parametrize("byte", [0, -1])
def test_the_fingerprint_sees_both_ends_of_a_long_file(tmp_path, byte):
    content = bytearray(100_000)
    (tmp_path / "a.wav").write_bytes(content)
    before = read_corpus(tmp_path).fingerprint()
    content[byte] = 1
    (tmp_path / "a.wav").write_bytes(content)
    assert read_corpus(tmp_path).fingerprint() != before


def test_two_ways_of_reading_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="labels and manifest exclude each other"):
        read_corpus(touch(tmp_path, "a.wav"), labels="{genre}", manifest="x.csv")
    with pytest.raises(InputError, match="no manifest at"):
        read_corpus(touch(tmp_path, "a.wav"), manifest=tmp_path / "x.csv")


def test_tracks_of_one_name_are_one_only_in_a_folder_or_of_an_artist(tmp_path):
    touch(tmp_path, "a/1 Intro.mp3", "a/1 Intro.flac", "b/1 Intro.mp3")
    found = read_corpus(tmp_path, labels="{artist}/{track}").table
    assert found["track"].tolist() == ["a/1 Intro", "a/1 Intro", "b/1 Intro"]
    manifest(tmp_path, "path,artist,track\na/1 Intro.mp3,A,Intro\nb/1 Intro.mp3,B,Intro\na/1 Intro.flac,A,\n")
    assert read_corpus(tmp_path).table["track"].tolist() == ["a/1 Intro.flac", "A: Intro", "B: Intro"]


def test_classes_of_three_artists_leave_some_for_validation():
    artists = [f"{genre}{i}" for genre in "abcdefghijkl" for i in range(3)]
    table = pd.DataFrame({"path": [str(i) for i in range(72)], "artist": np.repeat(artists, 2)})
    table["genre"] = table["artist"].str[0]
    split, note = choose_split(table)
    counts = pd.crosstab(table["genre"], split)
    assert note == "" and (counts["train"] > 0).all() and (counts["test"] > 0).all()
    assert counts["validation"].sum() == 8 and pd.Series(split).groupby(table["artist"]).nunique().eq(1).all()


def test_the_same_sound_and_the_same_artist_stay_on_one_side():
    table = pd.DataFrame({"path": [f"{i:03d}" for i in range(200)], "genre": "one", "artist": "", "duplicate_of": ""})
    table.loc[10:13, "artist"] = "a"
    table.loc[[50, 60], "duplicate_of"] = ["010", "040"]  # 050 sounds like 010, which is by the artist of 011 to 013
    split = pd.Series(split_clips(table))
    assert split[[10, 11, 12, 13, 50]].nunique() == 1 and split[[40, 60]].nunique() == 1
    assert split.value_counts(normalize=True).round(1).to_dict() == {"train": 0.7, "test": 0.2, "validation": 0.1}


def test_very_unequal_classes_are_split_as_far_as_possible():
    genres = ["big"] * 100 + ["small"] * 3 + ["two"] * 2 + ["single"]
    table = pd.DataFrame({"path": [str(i) for i in range(len(genres))], "genre": genres})
    counts = pd.crosstab(table["genre"], choose_split(table)[0])
    assert (counts["train"] > 0).all() and (counts.loc[["big", "small", "two"], "test"] > 0).all()
    assert choose_split(table)[1] == ""
