"""What a table, or else the names of its folders, say of a collection's files: labels, songs, a split, numbers.

What was seen and decided is added to the `remarks` that every function is given, a sentence each. `collection.py` reads
a collection with these; `docs/YOUR_MUSIC.md` lists what is recognised.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from pandas.api.types import is_any_real_numeric_dtype, is_float_dtype

from .config import InputError

LABELS = ("language", "genre", "family")
UNLABELLED = "unlabelled"
GIVEN_SPLIT = "given_split"  # column of a split that somebody made before; the store's own is `split`
WORDS = ("path", *LABELS, "artist", "track", "title", "album", "split", GIVEN_SPLIT)  # columns that hold no numbers
OWN = (  # columns that the store makes; a manifest's are left out
    "n_frames", "level_db", "tilt_db", "start_s", "seconds", "peak", "clipped", "silent", "rms_db", "rate", "asked_s",
    "channels", "format", "duplicate_of", "clip", "mel", "mel_hz", "frame", "log_mel", GIVEN_SPLIT,
)  # fmt: skip
# Numbers that describe no sound: of a rendered clip, or those that number the rows
NOT_FACTORS = re.compile(r"seed|vocal_active_share|(.*[\W_])?(id|ids|idx|nr|no|n|row)|.*(index|number|disc|fold)", re.I)
PLACEHOLDER = re.compile(
    r"[\s\-–—_?.]*|\\n|<na>|#[a-z/0]+[!?]|\W?(unlabelled|unknown|unspecified|undefined|n/a|n\.a\.|various|va|v\.a\.|compilations?)"
    r"([ _](artists?|genre|language|family|album|title|track))?\W?", re.I,
)  # fmt: skip
# Names of folders that are no labels, and words of those that are, whatever else they look like
NUMBER = re.compile(r"[\W_]*\d[\d\W_]*|[A-Za-z]")
SPLIT = re.compile(
    r"(?:.*[\W_])?(?:(?P<train>train(ing)?)|(?P<validation>val(id(ation)?)?|dev(elopment)?)"
    r"|(?P<test>test(ing)?|eval(uation)?)|fold[\W_]*\d+)(?:[\W_].*)?", re.I,
)  # fmt: skip
WRAPPER = re.compile(r".*(genre|audio|music|song|data|wav|mp3|flac|media|sound|collection|library|download).*", re.I)
ALBUM = re.compile(r".*(\b((19|20)\d\d|album|ep)\b|\b(cd|dis[ck]|vol|part|side)[\W_]*\d| - ).*", re.I)
ARTISTS = re.compile(r"(?:^|/)(?:itunes|compilations|(?:unknown|various) (?:artist|album)s?/)", re.I)
GENRE = re.compile(
    r"(.*[\W_])?(blues|classical|country|dance|disco|electronic|folk|funk|gospel|hip.?hop|indie|jazz|latin|metal|pop"
    r"|punk|rap|reggae|rock|soul|techno|house|trance|world)([\W_].*)?", re.I,
)  # fmt: skip
MOST = 0.9  # share of names that must look like something for all to be taken for it
TABLES = (".csv", ".tsv", ".parquet", ".xlsx", ".xls", ".ods")
Rejected = tuple[str, str]  # path, reason


def listed(names: Iterable[Any], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    names = [repr(str(name)[:60]) for name in names]
    return ", ".join(names[:most]) + f" and {len(names) - most:,} more" * (len(names) > most)


def read_table(source: Path, remarks: list[str]) -> pd.DataFrame:
    """A table with a column `path`; known columns match in any case. It is data, nothing in it is run."""
    if not source.is_file():
        raise InputError(f"no manifest at {source}: give a CSV or Parquet file, or leave it out to read the folders")
    try:
        if source.suffix.lower() not in (".parquet", ".pq"):
            table = _read_text(source, remarks)
        elif not isinstance((table := pd.read_parquet(source)).index, pd.RangeIndex):
            table = table.reset_index(names=None if table.index.name or "path" in table else "path")
    except Exception as e:  # the parsers raise many kinds
        line = f"{type(e).__name__}: {e}".splitlines()[0][:200]
        raise InputError(f"{source} is no readable table ({line}); write Parquet, or UTF-8 CSV with a header") from e
    # A slash would be a group of the store
    names = [" ".join(re.sub(r"[/\\]", "∕", str(c)).split()).strip(".")[:80] for c in table]
    names = pd.Series([n.lower() if n.lower() in (*WORDS, *OWN) else n for n in names], dtype=object)
    if "path" not in set(names) or table.empty:
        found = f"its first line is {listed(names)}" if len(table) else "it has no rows"
        raise InputError(f"{source} has no rows with a `path` column ({found}); call the column of files `path`")
    unused = names.str.casefold().duplicated() | names.str.match(r"$|Unnamed: |__") | names.isin(OWN)
    if unused.any():
        remarks.append(f"columns without a name, there twice or the store's own are not read: {listed(names[unused])}")
    return table.set_axis(names, axis=1).loc[:, ~unused.to_numpy()].rename(columns={"split": GIVEN_SPLIT})


def _read_text(source: Path, remarks: list[str]) -> pd.DataFrame:
    """A table of text in a usual encoding and with a usual delimiter: every cell as it stands there."""
    content, encoding = source.read_bytes(), "utf-8"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[1:2] == b"\0":
        encoding = "utf-16"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        encoding = "cp1252"
        text = content.decode(encoding, "replace")
    if "\0" in text:
        raise ValueError("it is no text")
    text = re.sub(r"\A(sep=.)?(?: *[\r\n]+)*", "", text)  # Excel's own first line, and empty ones
    heads = {d: next(csv.reader(text.splitlines()[:1], delimiter=d, skipinitialspace=True), []) for d in "\x1f,;\t|"}
    delimiter = max(heads, key=lambda d: ("path" in [h.strip().lower() for h in heads[d]], len(heads[d])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as e:
        raise ValueError(f"line {reader.line_num}: {e}; write quotes within a cell twice") from e
    lines, (head, *cells) = zip(*rows, strict=True) if rows else ((), [[]])
    for line, row in zip(lines[1:], cells, strict=True):
        if any(cell.strip() for cell in row[len(head) :]):
            todo = f"let the first line name the columns, and quote cells that hold {delimiter!r}"
            raise ValueError(f"line {line} has {len(row)} cells, the first has {len(head)}: {todo}")
    if encoding != "utf-8" or delimiter not in "\x1f,":
        doubt = "; save it as UTF-8 if letters look wrong" * (encoding == "cp1252")
        remarks.append(f"{source.name} is read as {encoding} with the delimiter {delimiter!r}{doubt}")
    cells = [(row + [""] * len(head))[: len(head)] for row in cells]
    return pd.DataFrame(cells, columns=head, index=lines[1:], dtype=object)


def locate(
    table: pd.DataFrame, source: Path, roots: tuple[str, str], files: list[str], allow_outside: bool, remarks: list[str]
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Each path of a table becomes the name of its file on disk, however it is written; and what is not there.

    `roots` are two names of the collection: what links lead to, and what was given.
    """
    known = {_key(p): p for p in reversed(files)} | {p: p for p in files}
    stems, found, lost = {_key(Path(p).stem): p for p in files}, {}, {}
    bases = dict.fromkeys((roots[0], os.path.realpath(source.parent), os.path.dirname(roots[0])))
    for line, given in zip(table.index, _words(table, "path"), strict=True):
        if not given.strip() or "\0" in given:
            lost[f"{source.name}, line {line}"] = "names no file; correct or remove it"
            continue
        ways = [given] if given in known else _spellings(given, roots, bases)
        path = next((known[k] for k in (*ways, *map(_key, ways)) if k in known), None)
        path = path or next((w for w in ways if os.path.isfile(os.path.join(roots[0], w))), None)
        other = next((stems[k] for k in (_key(Path(w).stem) for w in ways) if k in stems), None)
        hint = f"; but {other!r} is there" if other and not path else ""
        whole = os.path.realpath(os.path.join(roots[0], path or ways[1]))
        if not allow_outside and not whole.startswith(f"{roots[0]}{os.sep}"):
            todo = f"use a path inside it, or allow it (--allow-outside){hint}"
            raise InputError(f"{source}, line {line}: {given[:200]!r} leaves the corpus folder; {todo}")
        if path:
            found[line] = path
        else:
            lost[given] = f"is not there{hint}; correct the manifest"
    if not found:
        raise InputError(f"no row of {source} names a file: {listed(lost, 1)} {next(iter(lost.values()))}")
    table = table.loc[list(found)].assign(path=list(found.values()))
    if len(again := table["path"][table["path"].duplicated()]):
        remarks.append(f"{len(again):,} rows name a file again and are not read: {listed(again.unique())}")
    return table.drop(again.index), list(lost.items())


def _key(path: str) -> str:
    """What spellings have in common that differ in case, composed or decomposed letters, or blanks at the ends."""
    return unicodedata.normalize("NFC", path.casefold()).strip()


def _spellings(given: str, roots: tuple[str, str], bases: Iterable[str]) -> list[str]:
    """What a path may mean, seen from the collection or another base: with backslashes, ~, ./, as a URL, with %20."""
    url = re.sub(r"^\s*file:(//)?(localhost(?=/))?", "", given, flags=re.I).replace("\\", "/").strip()
    ways = [given]
    for base in bases:
        for path in dict.fromkeys((url, unquote(url))):
            whole = os.path.normpath(os.path.join(base, os.path.expanduser(path)))
            inside = whole.removeprefix(f"{roots[0]}{os.sep}").removeprefix(f"{roots[1]}{os.sep}")
            if inside != whole or base == roots[0]:
                ways.append(inside)
    return ways


def folder_table(root: Path, files: Sequence[str], labels: str, remarks: list[str]) -> pd.DataFrame:
    """Labels from the names of folders and files, a row per file."""
    if not files:
        raise InputError(f"no audio in {root} and its subfolders: give a folder of sound files")
    stems = pd.Series(files).map(lambda path: os.path.splitext(path)[0])
    found = _by_pattern(root, stems, labels, remarks) if labels else _by_levels(stems, remarks)
    return found.assign(path=files).rename(columns={"split": GIVEN_SPLIT})


def _by_levels(stems: pd.Series, remarks: list[str]) -> pd.DataFrame:
    """The two folders that are next to each file: language and genre, if they look like that."""
    levels = [["", "", "", *stem.split("/")[:-1]][-3:] for stem in stems]
    found = pd.DataFrame(levels, columns=["path", "language", "genre"])  # `path`: what is above them
    for level in ("genre", "language"):
        names = found[level][found[level].ne("")]
        if len(names) and (seen := _no_label(level, names, stems[names.index])):
            remarks.append(f"folders such as {listed(names.unique(), 3)} look like {seen}")
            found[["language", "genre"] if level == "genre" or seen.startswith("genres") else "language"] = ""
    upper = found["path"][found["path"].ne("") & found["language"].ne("")].drop_duplicates()
    if {*found["language"]} & {*found["genre"]} - {""} or (len(upper) > 1 and not upper.str.fullmatch(SPLIT).all()):
        todo = "--labels says what each level is, as in '{language}/{family}/{genre}/{track}'"
        remarks.append(f"folders are nested otherwise than language/genre ({stems.iloc[-1]!r}) and not used; {todo}")
        found[["language", "genre"]] = ""
    return found


def _no_label(level: str, folders: pd.Series, stems: pd.Series) -> str:
    """What the folders of some files look like, and the pattern that would use them; "": labels."""
    names, sizes, depth = pd.Series(folders.unique()), folders.value_counts(), int(stems.str.count("/").median())
    # Album/01 Song, Album/2-01 Song, Album/A1 Song, Album/Artist - 01 Song: no number and no title twice
    songs = stems.str.extract(r"^((?:.*(?:/| - ))?(?:\d+[-.](?=\d))?)([A-Z]?\d{1,3})[-_.) ]+([^/]*[^\W\d][^/]*)$")
    numbered = songs.notna().all(axis=1).mean() >= MOST and not any(songs[[0, c]].duplicated().any() for c in (1, 2))
    many = len(names) > 150 or (len(names) >= 20 and sizes.median() <= 3)
    albums = many or (numbered and len(names) > 1 and sizes.median() <= 25) or names.str.fullmatch(ALBUM).mean() > 0.5
    albums |= stems.str.contains(ARTISTS).any()
    genres, below = names.str.fullmatch(GENRE).mean(), "{track}" if level == "genre" else "{genre}/{track}"
    seems = [
        ("numbers or single letters", names.str.fullmatch(NUMBER).mean() >= MOST, f"{{{level}}}/{below}"),
        ("splits", names.str.fullmatch(SPLIT).mean() >= MOST, f"{{split}}/{below}"),
        ("artists or albums", albums and genres < 0.5, "{artist}/{album}/{track}" if depth > 1 else "{artist}/{track}"),
        ("genres, above others", level == "language" and genres > 0.5, "{genre}/{artist}/{track}"),
        ("languages", level == "genre" and names.str.fullmatch("[a-z]{2}").all(), "{language}/{track}"),
        ("a folder for everything", len(names) == 1 and WRAPPER.fullmatch(names[0]), f"{{{level}}}/{below}"),
    ]
    seen, pattern = next(((seen, pattern) for seen, holds, pattern in seems if holds), ("", ""))
    pattern = "*/" * (depth - pattern.count("/")) + pattern
    todo = f"not like labels, and are not used; --labels '{pattern}' would, and a table can give others"
    return seen and f"{seen}, {todo}"


def _by_pattern(root: Path, stems: pd.Series, labels: str, remarks: list[str]) -> pd.DataFrame:
    """What a pattern such as `{genre}/{artist} - {title}` finds in the names."""
    text = re.escape(labels.replace("\\", "/").removeprefix("./").strip("/")).replace(r"\*", "[^/]*")
    text = re.sub(r"\\\{(\w+)\\\}", lambda name: f"(?P<{name[1].lower()}>[^/]+?)", text)
    try:
        pattern = re.compile(rf"\A{text}\Z", re.DOTALL)
    except re.error:  # a name begins with a digit, or stands twice
        pattern = re.compile("")
    if not pattern.groups or {"path", *OWN} & set(pattern.groupindex) or re.search(r"\\[{}]", text):
        usage = "write the levels of folders with names in braces, each once, e.g. {language}/{genre}/{artist}/{track}"
        raise InputError(f"labels {labels!r} is no pattern: {usage}; {', '.join(('path', *OWN))} are taken")
    found = stems.str.extract(pattern)
    fits = found.notna().any(axis=1)
    if not fits.any():
        raise InputError(f"no file of {root} fits {labels!r}, for example {stems[0]!r} does not; correct the pattern")
    if not fits.all():
        remarks.append(f"{(~fits).sum():,} of {len(fits):,} files do not fit {labels!r} and have no labels")
    if "track" in found:  # a name is one track in its folder only: every album has a first song
        found["track"] = (stems.map(os.path.dirname) + "/" + found["track"]).str.removeprefix("/")
    return found


def described(table: pd.DataFrame, remarks: list[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table with clean labels, a track for every file, its numbers as numbers; and the columns that are factors."""
    for column in (*LABELS, *{"artist"} & {*table}):
        words = _clean(_words(table, column), column, remarks)
        table[column] = words.replace("", UNLABELLED) if column in LABELS else words
    table["track"] = _tracks(table, remarks)
    if GIVEN_SPLIT in table:
        given = _words(table, GIVEN_SPLIT)
        split = given.map(lambda word: (m := SPLIT.fullmatch(word)) and m.lastgroup)
        used = split.notna().all() and {"train", "test"} <= {*split}
        table = table.assign(**{GIVEN_SPLIT: split}) if used else table.drop(columns=GIVEN_SPLIT)
        why = "used" if used else "not used: each file needs one of train, validation and test, with some in both ends"
        remarks.append(f"the given split ({listed(given.unique())}) is {why}")
    for column in table.columns.drop(list(WORDS), errors="ignore"):
        if not is_any_real_numeric_dtype(table[column]):
            table[column] = _numbers(_words(table, column), remarks)
    numeric = [c for c in table if is_any_real_numeric_dtype(table[c]) and not NOT_FACTORS.fullmatch(c)]
    factors = tuple(c for c in numeric if table[c].nunique() > 1)  # what is the same in every clip explains nothing
    if others := [c for c in table if c not in (*WORDS, *factors)]:
        remarks.append(f"neither labels ({', '.join(LABELS)}) nor factors (numbers that vary): {listed(others)}")
    for label in LABELS:
        sizes = table[table[label] != UNLABELLED].groupby(label)["track"].nunique()
        if len(few := sizes.index[sizes < 3]):
            remarks.append(f"{len(few):,} of {len(sizes):,} classes of {label} have one or two songs: {listed(few)}")
    return table.copy(), factors  # in one piece


def _words(table: pd.DataFrame, column: str) -> pd.Series:
    """A column as words, "" where there is none; whole numbers without a decimal point."""
    values = table.get(column, pd.Series("", table.index, object))
    if is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype(object).where(values.notna(), "").astype(str)


def _clean(words: pd.Series, column: str, remarks: list[str]) -> pd.Series:
    """Labels without blanks around them, without placeholders, and in one spelling of each."""
    words = words.map(lambda word: " ".join(re.split(r"[\s\u200b\ufeff]+", unicodedata.normalize("NFC", word))).strip())
    none = words.str.fullmatch(PLACEHOLDER)
    if found := sorted({*words[none]} - {""}):
        remarks.append(f"{listed(found)} as {column} counts as none")
    words, usual = words.mask(none, ""), {}
    for word in words.value_counts().sort_index().sort_values(ascending=False, kind="stable").index:
        usual.setdefault(word.casefold(), word)
    if twins := [f"{word} = {usual[word.casefold()]}" for word in sorted({*words} - {*usual.values()})]:
        remarks.append(f"{column}: spellings that differ in case only are taken for one: {listed(twins)}")
    return words.map(lambda word: usual[word.casefold()])


def _tracks(table: pd.DataFrame, remarks: list[str]) -> pd.Series:
    """The song of every file: what the table says, if it names songs, else the path."""
    names, artist = _words(table, "track").str.strip(), _words(table, "artist")
    known = ~names.str.fullmatch(PLACEHOLDER)
    # Two artists may have a track of one name; a pattern's tracks have their folders before them
    tracks = names.where(artist.eq("") | names.str.contains("/"), artist + ": " + names)
    numbers = names[known].str.fullmatch(r"(.*/)?([Tt]rack\W?)?\d{1,2}(/\d{1,2}|\.0)?")
    if numbers.mean() >= MOST and tracks[known].duplicated().any():
        remarks.append(f"tracks are numbers ({listed(names[known].unique(), 3)}), no names: a file is a song")
        known[:] = False
    return tracks.where(known, table["path"])


def _numbers(words: pd.Series, remarks: list[str]) -> pd.Series:
    """Words as numbers, also with a decimal comma, if nearly all of them are; else the words."""
    numbers = pd.to_numeric(words, errors="coerce").replace([np.inf, -np.inf], np.nan)
    left = words[numbers.isna()].str.strip()
    left = left[~left.str.fullmatch(PLACEHOLDER) & ~left.str.lower().isin(["nan", "na", "none", "null"])]
    comma = left[left.str.contains(",")]  # the last of both marks is the decimal one
    english = comma.str.contains(r",.*\.").any() or comma.str.fullmatch(r"\W?[1-9]\d{0,2}(,\d{3})+").all()
    plain = comma if english else comma.str.replace(r"[\s.]", "", regex=True).str.replace(",", ".")
    numbers = numbers.fillna(pd.to_numeric(plain.str.replace(",", ""), errors="coerce"))
    left = left[numbers[left.index].isna()]
    if numbers.count() < 4 * len(left):
        return words
    if len(comma):
        remarks.append(f"{words.name} is read with {'commas between thousands' if english else 'a decimal comma'}")
    if len(left):
        remarks.append(f"{len(left):,} values of {words.name} are no numbers, so missing: {listed(left.unique())}")
    return numbers
