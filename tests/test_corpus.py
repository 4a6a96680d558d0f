"""Finding clips by manifest or folder tree, refusing bad manifests, quarantine, grouped and stratified splits."""

import numpy as np
import pandas as pd
import pytest

from vaelib.audio import UnreadableAudio
from vaelib.config import InputError
from vaelib.corpus import SPLITS, quarantine, read_corpus, split_clips


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


def test_quarantine_lists_reasons_and_goes_on(tmp_path):
    found = read_corpus(touch(tmp_path, "a.wav", "b.wav", "c.wav"))

    def check(path):
        if path.name == "b.wav":
            raise UnreadableAudio("is empty, a comma too")
        return 7

    table, bad = quarantine(found, check, tmp_path / "out" / "rejected.csv")
    assert table["path"].tolist() == ["a.wav", "c.wav"] and table["n_frames"].tolist() == [7, 7]
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
    assert ("test" in counts) == (per_genre > 1) and ("validation" in counts) == (per_genre > 3)
