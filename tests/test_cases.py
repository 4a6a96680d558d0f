"""Collections as people have them: tables, paths, labels and folders are read rightly, or told in a sentence."""

import os
import re
import unicodedata
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone
from typer.testing import CliRunner

from vaelib.cli import app
from vaelib.collection import choose_split, read_corpus
from vaelib.config import InputError
from vaelib.store import open_store

NAMES = [f"{i:02d}.wav" for i in range(12)]


def songs(folder, *paths):
    for path in paths or NAMES:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def lines(head, *row, sep=","):
    """A table of a row for each of `NAMES`; `row` are functions of its number, or texts."""
    rows = [[name, *(str(r(i) if callable(r) else r) for r in row)] for i, name in enumerate(NAMES)]
    return "\n".join([head, *(sep.join(r) for r in rows)]) + "\n"


def genre(i):
    return ("rock", "jazz")[i % 2]


def tempo(i):
    return f"{90 + i},5"


PLAIN = lines("path,genre,tempo", genre, lambda i: 90 + i)
SEMICOLONS = lines("path;genre;tempo", genre, tempo, sep=";")
GENRES, TEMPO = {"rock": 6, "jazz": 6}, ("tempo",)
FULL = {"genre": GENRES, "factors": TEMPO}
NAMELESS = {"genre": GENRES, "factors": (), "told": ["without a name"]}
TABLES = {
    "plain": (PLAIN, FULL),
    "semicolons": (SEMICOLONS, FULL | {"told": ["delimiter ';'", "decimal comma"]}),
    "tabs": (lines("path\tgenre\ttempo", genre, tempo, sep="\t"), FULL),
    "pipes": (lines("path|genre|tempo", genre, tempo, sep="|"), FULL),
    "Excel's first line": ("sep=;\n" + SEMICOLONS, FULL),
    "commas in a header of semicolons": (lines("path;genre;a,b,c,d", genre, 1, sep=";"), {"genre": GENRES}),
    "byte order mark": ("\ufeff" + PLAIN, FULL),
    "UTF-16": (PLAIN.encode("utf-16"), FULL | {"told": ["utf-16"]}),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), FULL),
    "Latin-1": (lines("path,genre", "Rock çã").encode("cp1252"), {"genre": {"Rock çã": 12}, "told": ["cp1252"]}),
    "empty lines first": ("\r\n \r\n" + PLAIN.replace("\n", "\r\n"), FULL),
    "an empty cell first": ("\tpath\tgenre\n" + "".join(f"{n}\t{n}\trock\n" for n in NAMES), {"genre": {"rock": 12}}),
    "old Mac": (PLAIN.replace("\n", "\r"), FULL),
    "Windows": (PLAIN.replace("\n", "\r\n"), FULL),
    "index": (",path,genre\n" + "".join(f"{i},{n},{genre(i)}\n" for i, n in enumerate(NAMES)), NAMELESS),
    "Unnamed": (lines("path,genre,Unnamed: 0", genre, int), NAMELESS),
    "empty columns": (lines("path,genre,,", genre, "", ""), NAMELESS),
    "delimiter at row ends": (lines("path,genre,tempo", genre, int, ""), FULL),
    "empty rows": (PLAIN + ",,\n\n ,\n", FULL),
    "capitals and blanks": (lines(" Path , GENRE ,Artist", genre, genre), {"genre": GENRES, "artist": 2}),
    "names of factors": (lines("path,Tempo BPM,a{b}=c,c/d", *[int] * 3), {"factors": ("Tempo BPM", "a{b}=c", "c∕d")}),
    "twice a column": (lines("path,genre,Genre,tempo", genre, "x", int), FULL | {"told": ["there twice", "'genre'"]}),
    "the store's own": (lines("path,genre,tempo,Rate", genre, int, int), FULL | {"told": ["the store's own"]}),
    "words that pandas takes for nothing": (lines("path,genre", lambda i: ("nan", "NA")[i % 2]),
                                            {"genre": {"nan": 6, "NA": 6}}),
    "numbers as labels": (lines("path,genre", lambda i: i % 2 + 1), {"genre": {"1": 6, "2": 6}, "factors": ()}),
    "missing numbers": (lines("path,tempo", lambda i: ("", "nan", "n/a", 90, 100, 110)[i % 6]),
                        {"factors": TEMPO, "first": [None, None, None, 90]}),
    "a word among numbers": (lines("path,tempo", lambda i: "fast" if i == 3 else 90 + i),
                             {"factors": TEMPO, "told": ["1 values of tempo are no numbers", "'fast'"]}),
    "words": (lines("path,mood", genre), {"factors": (), "told": ["nor factors", "'mood'"]}),
    "thousands": (lines("path,tempo", lambda i: f'"1.23{i % 10},5"'), {"factors": TEMPO, "first": [1230.5, 1231.5]}),
    "thousands with commas": (lines("path,tempo", lambda i: f'"1,23{i % 10}.5"'), {"first": [1230.5, 1231.5]}),
    "infinite": (lines("path,tempo", lambda i: "inf" if i == 0 else i), {"first": [None, 1, 2]}),
    "quoted newline": (lines("path,genre,note", genre, '"two\nlines, and ""quotes"""'), {"genre": GENRES}),
    "short rows": ("path,genre,tempo\n00.wav\n01.wav,rock\n", {"rows": 2, "genre": {"rock": 1, "unlabelled": 1}}),
    "row numbers": (lines("path,ID,track_id,tempo", int, int, int), {"factors": TEMPO, "told": ["'ID', 'track_id'"]}),
    "constant": (lines("path,key,tempo", 3, int), {"factors": TEMPO, "told": ["nor factors", "'key'"]}),
    "a file twice": (PLAIN + "./00.wav,pop,1\n", FULL | {"told": ["1 rows name a file again", "'00.wav'"]}),
    "a row without a path": (PLAIN + ",,66\n", FULL | {"left": 1}),
    "thousands only": (lines("path,tempo", lambda i: f'"{i + 1},234"' if i else "999"),
                       {"first": [999, 2234], "told": ["commas between thousands"]}),
    "other words for missing": (lines("path,genre,tempo", *[lambda i: ("\\N", "<NA>", "#DIV/0!", 9, 8, 7)[i % 6]] * 2),
                                {"genre": {"7": 2, "8": 2, "9": 2, "unlabelled": 6}, "factors": TEMPO}),
    "numbers of tracks": (lines("path,TrackNumber,fold,tempo", *[int] * 3), {"factors": TEMPO, "told": ["'fold'"]}),
    "what to call labels": (lines("path,Genres", genre), {"told": ["neither labels (language, genre, family)"]}),
    # labels
    "blanks that cannot be seen": (lines("path,genre", lambda i: ("A B", "A  B", "A\xa0B", "\u200bA B")[i % 4]),
                                   {"genre": {"A B": 12}}),
    "spelling": (lines("path,genre", lambda i: ("Rock", "rock", "Rock ", " ")[i % 4]),
                 {"genre": {"Rock": 9, "unlabelled": 3}, "told": ["differ in case only", "rock = Rock"]}),
    "composed and decomposed": (lines("path,genre", lambda i: unicodedata.normalize(("NFC", "NFD")[i % 2], "Bossa é")),
                                {"genre": {"Bossa é": 12}}),
    "placeholders": (lines("path,genre,artist", lambda i: ("Unknown", "N/A", "?", "-")[i % 4], "Various Artists"),
                     {"genre": {"unlabelled": 12}, "artist": 0, "told": ["'Various Artists' as artist"]}),
    "more placeholders": (lines("path,artist", lambda i: ("Unknown Artist", "VA", "<unknown>")[i % 3]), {"artist": 0}),
    "real names": (lines("path,artist", lambda i: ("!!!", "Vá", "Unknown Mortal Orchestra")[i % 3]), {"artist": 3}),
    "track numbers": (lines("path,track", lambda i: i % 3 + 1), {"tracks": 12, "told": ["no names: a file"]}),
    "track numbers of albums": (lines("path,artist,track", "A", lambda i: f"0{i % 3 + 1}/12"), {"tracks": 12}),
    "track names": (lines("path,track", lambda i: f"Song {i // 3}"), {"tracks": 4}),
    "numbers that name songs": (lines("path,track", lambda i: 1000 + i // 3), {"tracks": 4}),
    "track numbers in words": (lines("path,artist,track", "A", lambda i: f"Track {i % 3}"), {"tracks": 12}),
    "small classes": (lines("path,genre", lambda i: "rock" if i else "jazz"), {"told": ["1 of 2 classes", "'jazz'"]}),
    "a split": (lines("path,Split", lambda i: ("Training", "development", "TEST")[i % 3]),
                {"split": {"train": 4, "validation": 4, "test": 4}, "told": ["is used"]}),
    "a split of two": (lines("path,split", lambda i: "test" if i < 2 else "train"),
                      {"split": {"train": 9, "validation": 1, "test": 2}}),
    "a split of nothing": (lines("path,split", lambda i: i % 5), {"told": ["is not used"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables(tmp_path, case):
    content, want = TABLES[case]
    (songs(tmp_path) / "manifest.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_corpus(tmp_path)
    assert len(found.table) == want.get("rows", 12) and len(found.left_out) == want.get("left", 12 - len(found.table))
    check(found, want)


def check(found, want):
    """Compare a collection with the classes, factors, numbers and sentences that it should have."""
    table = found.table
    for label in {"genre", "language"} & want.keys():
        assert table[label].value_counts().to_dict() == want[label]
    assert found.factors == want.get("factors", found.factors)
    if "artist" in want:
        assert table["artist"].replace("", np.nan).nunique() == want["artist"]
    assert table["track"].nunique() == want.get("tracks", table["track"].nunique())
    if "first" in want:
        assert [None if np.isnan(x) else x for x in table["tempo"][: len(want["first"])]] == want["first"]
    if "split" in want:
        assert pd.Series(choose_split(table)[0]).value_counts().to_dict() == want["split"]
    assert [part for part in want.get("told", []) if part not in "\n".join(found.remarks)] == [], found.remarks
    assert want.get("told") != [] or not found.remarks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file;genre\n00.wav;x\n", "no rows with a `path` column .*'file', 'genre'"),
        (",album,album,track\n,title,type,title\ntrack_id,,,\n2,a,b,c\n", "no rows with a `path` column"),
        ("My songs\n\npath,genre\n00.wav,x\n", "its first line is 'My songs'"),
        ('path,title\n00.wav,x\n01.wav,"Heroes" live\n', "line 3: .* write quotes within a cell twice"),
        ("path,genre,tempo\n00.wav,rock,90,5\n", "line 2 has 4 cells, the first has 3: .* quote"),
        ("path,genre\n/no/00.wav,x\n", "line 2: '/no/00.wav' leaves the corpus .*'00.wav' is there"),
        ("path\n00.wav\nb/../../c.wav\n", "line 3: .*leaves the corpus"),
        ("path,genre\nx.wav,a\ny.wav,b\n", "no row of .* names a file: 'x.wav' and 1 more is not there"),
        (b"PK\3\4\0\0\0\0\0\0", "no readable table .*no text"),
        ("", "it has no rows"),
        ("path,genre\n", "no rows"),
        ('path,genre\n"00.wav,x\n', "no readable table"),
        ("path,genre\n,y\n", "no row of .* names a file: 'manifest.csv, line 2'"),
        ("Table 1,\npath,genre\n00.wav,x\n", "its first line is 'Table 1', ''"),
    ],
)
def test_tables_that_are_refused(tmp_path, content, message):
    (songs(tmp_path) / "manifest.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_corpus(tmp_path)


FRAMES = {
    "nullable": lambda t: t.assign(genre=pd.array([1, 2, None] * 4, dtype="Int64")),
    "float labels": lambda t: t.assign(genre=[1.0, 2.0, None] * 4),
    "categories": lambda t: t.assign(genre=pd.Categorical(["1", "2", None] * 4)),
    "Arrow": lambda t: t.assign(genre=["1", "2", None] * 4).convert_dtypes(dtype_backend="pyarrow"),
    "path as index": lambda t: t.assign(genre=[1, 2, None] * 4).set_index("path"),
    "path as index without a name": lambda t: t.assign(genre=[1, 2, None] * 4).set_index("path").rename_axis(None),
    "filtered": lambda t: pd.concat([t, t]).assign(genre=[1, 2, None] * 8).iloc[:12],
    "nested": lambda t: t.assign(genre=["1", "2", None] * 4, tags=[["a"]] * 12, day=pd.Timestamp("2020-01-01")),
}


@pytest.mark.parametrize("case", FRAMES)
def test_parquet(tmp_path, case):
    table = pd.DataFrame({"path": NAMES, "tempo": pd.array([*range(90, 101), None], dtype="Int64")})
    FRAMES[case](table).to_parquet(songs(tmp_path) / "manifest.parquet")
    found = read_corpus(tmp_path)
    check(found, {"genre": {"1": 4, "2": 4, "unlabelled": 4}, "factors": TEMPO, "tracks": 12})


@pytest.mark.parametrize(
    "spell",
    [
        lambda p, root: f"./{p}",
        lambda p, root: p.replace("/", "\\"),
        lambda p, root: p.upper(),
        lambda p, root: unicodedata.normalize("NFD", p),
        lambda p, root: f"{root}/{p}",
        lambda p, root: f"~/{p}",
        lambda p, root: f"file://{quote(f'{root}/{p}')}",
        lambda p, root: f"file://localhost{quote(f'{root}/{p}')}",
        lambda p, root: quote(p),
        lambda p, root: f"  {p} ",
        lambda p, root: f"x/..//{p}",
        lambda p, root: f"{root}-link/{p}",
        lambda p, root: f"{root.name}/{p}",
        lambda p, root: f"./{root.name}\\{p}",
    ],
)
def test_the_same_file_however_its_path_is_written(tmp_path, monkeypatch, spell):
    root = tmp_path / "Música #1"
    paths = ["Roça/01 Canção.mp3", "a b/100% Ü & #2.flac"]
    songs(root, *paths, "other.wav")
    os.symlink(root, f"{root}-link")
    monkeypatch.setenv("HOME", str(root))
    pd.DataFrame({"path": [spell(p, root) for p in paths], "genre": "x"}).to_csv(root / "manifest.csv", index=False)
    link = str(spell(paths[0], root)).startswith(f"{root}-link")
    found = read_corpus(f"{root}-link" if link else root)
    assert found.table["path"].tolist() == paths and [p for p, _ in found.left_out] == ["other.wav"]


def test_what_is_not_found_says_what_differs(tmp_path):
    songs(tmp_path, "a/Song.flac", "b, or c.wav", "c.wav")
    (tmp_path / "manifest.csv").write_text("path\nsong.mp3\nd.wav\nc.wav\nd.wav\nb, or c.wav\n")
    found = read_corpus(tmp_path)
    assert found.table["path"].tolist() == ["b, or c.wav", "c.wav"]
    reasons = dict(found.left_out)
    assert len(reasons) == len(found.left_out) == 3  # two rows and a file
    assert reasons["song.mp3"] == "is not there; but 'a/Song.flac' is there; correct the manifest"
    assert reasons["d.wav"] == "is not there; correct the manifest"


def tree(folders, names="0, 1, 2"):
    """Files of these names in each of these folders."""
    return [f"{folder}/{name}.wav" for folder in folders.split(", ") for name in names.split(", ")]


def none(files, *told):
    """No labels for so many files, and what is said of it."""
    return {"genre": {"unlabelled": files}, "language": {"unlabelled": files}, "told": told}


GTZAN = [f"genres_original/{g}/{g}.{i:05d}.wav" for g in ("blues", "rock") for i in range(3)]
DEEP = ", ".join(f"{n}/{f}/{g}" for n in ("en", "ar") for f in ("trad", "urban") for g in ("gg", "hhh"))
SONGS = [f"{a}/{a} {k}/{a} - {i:02d} - {t}.mp3" for a in "QRS" for k in "xy" for i, t in ((1, "A"), (2, "B"))]
ISMIR = ", ".join(f"{s}/{g}/artist_{a}" for s in ("training", "test") for g in ("rock_pop", "world") for a in "12")
DISCS = [f"{a}/{d}-{i:02d} {s}{d}.m4a" for a in ("Q", "Post", "Gold") for d in (1, 2) for i, s in ((1, "A"), (2, "B"))]
SPLITS = {"train": 6, "validation": 6, "test": 6}
PATTERN, TRACK = "{split}/{genre}/{track}", "{genre}/{track} {title}"
FOLDERS = {
    "labels": (tree("en/rock, en/soul", "0 x, 1 x, 2 x"), "", {"genre": {"rock": 3, "soul": 3}, "told": []}),
    "numbered songs of genres": (tree("rock, jazz", "01 Song A, 02 Song B"), "", {"genre": {"rock": 2, "jazz": 2}}),
    "numbered takes of classes": (tree("ney", "000_ney, 001_ney") + tree("oud", "000_oud, 001_oud"), "",
                                  {"genre": {"ney": 2, "oud": 2}}),
    "GTZAN": (GTZAN, "", {"genre": {"blues": 3, "rock": 3}, "language": {"unlabelled": 6},
                          "told": ["a folder for everything"]}),
    "numbers": (tree("000, 001, 002"), "", none(9, "look like numbers", "'000', '001', '002'", "--labels")),
    "numbers that are labels": (tree("000, 001"), "{genre}/{x}", {"genre": {"000": 3, "001": 3}}),
    "splits": (tree("train/rock, train/jazz, test/rock, test/jazz"), "",
               {"genre": GENRES, "language": {"unlabelled": 12}, "told": ["look like splits", "{split}"]}),
    "splits below": (tree("fold1, fold2, fold10"), "", none(9, "look like splits")),
    "a split by folders": (tree("train/a, train/b, valid/a, valid/b, test/a, test/b"), PATTERN,
                           {"split": SPLITS, "genre": {"a": 9, "b": 9}}),
    "albums": (tree("Music/Abba/Gold, Music/Abba/More, Music/Bjork/Post, Music/Cher/It", "01 Intro, 02 Yes"), "",
               none(8, "artists or albums", "--labels")),
    "albums with years": (tree("A7/Name (1975), A8/Name (1985), A9/Name (1995)"), "", none(9)),
    "artists below genres": (tree("Rock/Q/Q 1, Rock/Q/Q 2, Jazz/M/M 1, Jazz/M/M 2", "01 A, 02 B"), "", none(8)),
    "iTunes": (tree("iTunes Media/Music/Abba/Gold, iTunes Media/Music/Compilations/Hits", "1-01 A"), "",
               none(2, "artists or albums")),
    "many artists": (tree(", ".join(f"Artist {i}" for i in range(30)), "x"), "", none(30)),
    "single letters": (tree("A, Z, 0"), "", none(9, "numbers or single letters")),
    "codes of languages": (tree("en, yo"), "", none(6, "look like languages", "{language}/{track}")),
    "genres of artists": (tree("Rock/Abba, Rock/Cher, Jazz/Abba, Jazz/Cher", "x"), "", none(4, "{genre}/{artist}")),
    "ISMIR 2004": (tree(ISMIR, "x"), "", none(8, "look like genres")),
    "three levels": (tree(DEEP, "x"), "", none(8, "nested otherwise")),
    "uneven": (["Samba/a.mp3", "Samba/live/b.mp3", "Choro/d.mp3"], "", none(3, "nested otherwise", "--labels says")),
    "artists in names of songs": (SONGS, "", none(12, "artists or albums")),
    "a pattern as in Windows": (tree("rock, jazz"), ".\\{Genre}\\{Track}", {"genre": {"rock": 3, "jazz": 3}}),
    "discs": (DISCS, "", none(12, "{artist}/{track}")),
    "artist and album in one": (tree("Abba - Best, Cher - Best", "a, b"), "", none(4, "artists or albums")),
    "folders of systems": (tree("rock, __MACOSX/rock, @eaDir, $RECYCLE.BIN", "a"), "", {"genre": {"rock": 1}}),
    "unknown": (tree("Rock, rock, Unknown"), "", {"genre": {"Rock": 6, "unlabelled": 3}}),
    "numbers for tracks": (tree("a, b", "00 x, 00 y, 01 x, 01 y"), TRACK, {"tracks": 8, "told": ["no names: a file"]}),
    "a table that is not read": (["rock/a.wav", "x.csv"], "", {"told": ["tables that are not read", "'x.csv'"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(tmp_path, case):
    paths, labels, want = FOLDERS[case]
    found = read_corpus(songs(tmp_path / "x", *paths), labels=labels)
    check(found, want)
    for pattern in re.findall("--labels '(.*?)'", "\n".join(found.remarks)):  # what is advised works
        assert len(read_corpus(tmp_path / "x", labels=pattern).table) == len(found.table)


def test_a_given_split_that_tears_songs_apart_is_told():
    table = pd.DataFrame({"path": [f"{i}" for i in range(6)], "artist": list("aabbcc"), "genre": "x"})
    table["given_split"] = ["train", "test", "train", "train", "test", "validation"]
    split, note = choose_split(table)
    assert split.tolist() == table["given_split"].tolist() and "tears 2 artists, songs or copies apart" in note


COMMANDS = {
    "table": (NAMES, lines(" Path;Genre;Tempo {BPM}=;x", genre, tempo, sep=";") + "no.wav;x;1\n",
              {"genre": GENRES, "factors": ["Tempo {BPM}="]},
              ["with the delimiter ';'", "decimal comma", "1 files are left out"]),
    "split": (tree("train/rock, train/jazz, test/rock, test/jazz"), "", {"genre": GENRES},
              ["look like splits", "'test', 'train'"]),
    "albums": (tree(", ".join(f"Artist {i}/Album (199{i})" for i in range(6)), "01 Song"), "",
               {"genre": {"unlabelled": 6}}, ["look like artists or albums"]),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_says_what_was_seen(tmp_path, data, case):
    paths, content, want, told = COMMANDS[case]
    for i, path in enumerate(paths):
        (tmp_path / case / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / case / path, tone(110 + 40 * i, seed=i), RATE)
    if content:
        (tmp_path / case / "manifest.csv").write_text(content)
    done = CliRunner().invoke(app, ["preprocess", str(tmp_path / case)])
    assert done.exit_code == 0 and [part for part in told if part not in done.output] == [], done.output
    store = open_store(data / "stores" / f"{case}-compact.zarr")
    for label in {"genre", "language"} & want.keys():
        assert store.table[label].value_counts().to_dict() == want[label]
    assert store.factors == want.get("factors", [])
