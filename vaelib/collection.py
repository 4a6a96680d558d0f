"""What a collection holds: numbers, classes, copies, suspicious files, and sentences about what models suffer from.

Pure functions of a store's table (one row per segment) and of the list of rejected files. A column that an older store
lacks is left out of what is said. No plotting.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .corpus import SPLITS
from .manifest import LABELS, UNLABELLED

WIDE_DB = 20.0  # between the softest and the loudest files, 5 % left out at both ends
FEW = 3  # tracks; a class with fewer cannot be in train, validation and test
UNEQUAL = 10  # times as many tracks in the largest class as in the smallest
SHARES = {"silent": 0.5, "clipped": 0.001}  # of a file from which on it is suspicious
# What can be said of a file and how: of its segments' values, weighted by their length where it is a mean
FIRST = ("track", *LABELS, "artist", "rate", "channels", "format", "duplicate_of", "split")
NAMED = 5  # classes or files named in a sentence; the others are counted


def files(table: pd.DataFrame, frame_seconds: float = np.nan) -> pd.DataFrame:
    """One row per file, in the order of the table.

    Args:
        table: One row per segment, as `Store.table`.
        frame_seconds: Seconds per frame, from which lengths follow where the table has no `seconds`.

    Returns:
        Index: path. `segments`, `seconds` (to the end of the last segment), `peak`; means over time of `clipped` and
        `silent`; `rms_db`, dB of the mean power; and the columns of `FIRST`; as far as the table has them.
    """
    t = table.assign(path=table["path"].astype(str))
    if "seconds" not in t:
        t["seconds"] = t["n_frames"] * frame_seconds if "n_frames" in t else np.nan
    t["end"] = t["seconds"] + t.get("start_s", 0.0)
    groups = t.groupby("path", sort=False)
    found = groups.agg(segments=("path", "size"), seconds=("end", "max"), **{
        c: (c, "first") for c in FIRST if c in t
    })  # fmt: skip
    if "peak" in t:
        found["peak"] = groups["peak"].max()
    weight = t["seconds"].where(t["seconds"] > 0, 1e-9)
    total = weight.groupby(t["path"]).sum()
    for column in (c for c in SHARES if c in t):
        found[column] = (t[column] * weight).groupby(t["path"]).sum() / total
    if "rms_db" in t:
        power = (10.0 ** (t["rms_db"] / 10) * weight).groupby(t["path"]).sum() / total
        found["rms_db"] = 10 * np.log10(power.clip(lower=1e-12))
    return found


def classes(found: pd.DataFrame, label: str) -> pd.DataFrame:
    """Every class of a label, the largest first: `tracks`, `files`, `hours`, and tracks of every split.

    Args:
        found: Of `files`.

    Returns:
        Index: class; empty where nothing has that label.
    """
    known = found[label].astype(str) if label in found else pd.Series(UNLABELLED, found.index)
    own = found[~known.isin([UNLABELLED, ""])]
    track = own["track"].astype(str) if "track" in own else own.index.to_series()
    by = known[own.index].rename("class")
    counts = pd.DataFrame({"tracks": track.groupby(by).nunique(), "files": own.groupby(by).size()})
    counts["hours"] = own["seconds"].groupby(by).sum() / 3600
    if "split" in own:
        each = pd.DataFrame({"class": by, "split": own["split"], "track": track}).drop_duplicates()
        parts = each.groupby(["class", "split"]).size().unstack(fill_value=0)
        counts = counts.join(parts.reindex(columns=list(SPLITS)))
        counts = counts.fillna(dict.fromkeys(SPLITS, 0)).astype(dict.fromkeys(SPLITS, int))
    return counts.sort_values(["tracks", "files"], ascending=False, kind="stable")


def summary(found: pd.DataFrame, rejected: pd.DataFrame) -> pd.Series:
    """The collection in numbers, as words; index: what is told.

    Args:
        found: Of `files`.
        rejected: Files that could not be used: `path`, `reason`.
    """
    said = {
        "files": f"{len(found):,}",
        "tracks": f"{found['track'].nunique():,}" if "track" in found else None,
        "segments": f"{found['segments'].sum():,}",
        "rejected": f"{len(rejected):,}",
        "hours": f"{found['seconds'].sum() / 3600:,.2f}" if found["seconds"].notna().any() else None,
        "length of a file": _range(found, "seconds", lambda s: f"{s:,.1f} s"),
        "loudness (RMS)": _range(found, "rms_db", lambda v: f"{v:.1f} dBFS"),
    }
    for column, word in (("format", "formats"), ("rate", "sampling rates"), ("channels", "channels")):
        if column in found:
            said[word] = _counted(found[column].map(lambda r: f"{r:g} Hz") if column == "rate" else found[column])
    for label in LABELS:
        n = len(classes(found, label))
        said[{"family": "families"}.get(label, f"{label}s")] = f"{n:,}" if n else None
    if "artist" in found and (named := found["artist"].fillna("").astype(str)).ne("").any():
        said["artists"] = f"{named[named.ne('')].nunique():,}"
    for column, word in (("silent", "mostly silent files"), ("clipped", "clipped files")):
        if column in found:
            said[word] = f"{int((found[column] >= SHARES[column]).sum()):,}"
    if "duplicate_of" in found:
        said["copies of another file"] = f"{int(found['duplicate_of'].astype(str).ne('').sum()):,}"
    if "split" in found:
        said["files per split"] = _counted(found["split"])
    return pd.Series({k: v for k, v in said.items() if v is not None}, name="the collection", dtype=object)


def _range(found: pd.DataFrame, column: str, say: Callable[[float], str]) -> str | None:
    """Median and the range that holds 90 % of the files."""
    values = found[column].dropna() if column in found else ()
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{say(middle)} (90 % of files: {say(low)} to {say(high)})"


def _counted(values: pd.Series) -> str:
    counts = values.astype(str).value_counts()
    more = f", {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"{name}: {n:,}" for name, n in counts[:NAMED].items()) + more


def copies(found: pd.DataFrame) -> pd.DataFrame:
    """Files with the same audio, the original before its copies: `same_as`, and of each the labels, format, split.

    Returns:
        Index: path; `same_as` is the group's first file. Empty where nothing has a copy.
    """
    kept = [c for c in ("seconds", "format", "rate", *LABELS, "artist", "split") if c in found]
    if "duplicate_of" not in found:
        return found.iloc[:0][kept].assign(same_as="")
    of = found["duplicate_of"].fillna("").astype(str)
    first = of.where(of.ne(""), found.index.to_series().astype(str))
    groups = found[kept].assign(same_as=first)[first.isin(set(of) - {""})]
    place = {path: i for i, path in enumerate(found.index)}
    order = groups["same_as"].map(lambda p: place.get(p, len(place)))
    return groups.iloc[np.argsort(order.to_numpy(), kind="stable")][["same_as", *kept]]


def suspicious(table: pd.DataFrame, n: int = 4) -> pd.Series:
    """Segments to listen to: the most silent and the most clipped ones, one of a file.

    Returns:
        Index: row of the table; value: why. Empty where nothing is beyond `SHARES` or the columns are missing.
    """
    why: dict = {}
    for column, word in (("silent", "silent"), ("clipped", "clipped")):
        if column in table:
            worst = table[table[column] >= SHARES[column]].sort_values(column, ascending=False, kind="stable")
            for row, share in worst.drop_duplicates("path")[column].head(n).items():
                why[row] = ", ".join(filter(None, [why.get(row), f"{_percent(share)} {word}"]))
    return pd.Series(why, name="why", dtype=object)


def side_by_side(table: pd.DataFrame, same: pd.DataFrame, groups: int = 4) -> pd.Series:
    """Segments in which to hear that files are the same: the first one of each file of some groups.

    Args:
        same: Of `copies`.

    Returns:
        Index: row of the table; value: what it is. At most three files of a group.
    """
    rows = table.reset_index(names="row").drop_duplicates("path").set_index("path")["row"]
    heard = same[same["same_as"].isin(same["same_as"].unique()[:groups])].groupby("same_as", sort=False).head(3)
    heard = heard[heard.index.isin(rows.index)]
    notes = ["original" if path == of else f"same as {of}" for path, of in heard["same_as"].items()]
    return pd.Series(notes, index=rows[heard.index].to_numpy(), name="why", dtype=object)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.2%}"


def reasons(rejected: pd.DataFrame) -> pd.Series:
    """Number of rejected files for each kind of reason, the most frequent first; numbers and brackets are left out."""
    kind = rejected["reason"].astype(str).str.split(r"[;(:]", regex=True).str[0].str.strip()
    return kind.value_counts().rename("files")


def warnings(found: pd.DataFrame, rejected: pd.DataFrame) -> list[str]:
    """What a model or a claim would suffer from, a sentence each; an empty list is good news.

    Args:
        found: Of `files`.
        rejected: `path`, `reason`.
    """
    told = [_about_labels(found, label) for label in ("language", "genre")]
    told = [sentence for sentences in told for sentence in sentences]
    if len(rejected):
        n = len(rejected) + len(found)
        told.append(
            f"{len(rejected):,} of {n:,} files ({len(rejected) / n:.1%}) were rejected: "
            "the list of rejected files says why."
        )
    for column, word in (("silent", "mostly silent"), ("clipped", "clipped")):
        if column in found and (found[column] >= SHARES[column]).any():
            own = found[found[column] >= SHARES[column]].sort_values(column, ascending=False)
            told.append(
                f"{len(own):,} of {len(found):,} files {'is' if len(own) == 1 else 'are'} {word}: {_named(own.index)}."
            )
    return told + _about_copies(found) + _about_loudness(found)


def _about_labels(found: pd.DataFrame, label: str) -> list[str]:
    counts = classes(found, label)
    if counts.empty:
        return [f"Nothing has a {label}: unsupervised models run, claims about {label} will say `not tested`."]
    told = []
    without = len(found) - int(counts["files"].sum())
    if without:
        told.append(f"{without:,} of {len(found):,} files have no {label}.")
    if len(counts) == 1:
        told.append(f"There is one {label} only, {_named(counts.index)}: nothing to tell apart.")
        return told
    single, few = counts[counts["tracks"] == 1], counts[counts["tracks"].between(2, FEW - 1)]
    if len(single):
        told.append(f"{_classes(len(single), label)} a single track, which no split can share: {_named(single.index)}.")
    if len(few):
        told.append(f"{_classes(len(few), label)} too few tracks for three splits: {_named(few.index)}.")
    most, least = counts["tracks"].iloc[0], counts["tracks"].iloc[-1]
    if most >= UNEQUAL * least:
        names = f"{_named(counts.index[:1])} with {most:,} tracks, {_named(counts.index[-1:])} with {least:,}"
        told.append(f"The {label} classes are very unequal ({names}): numbers will follow the large ones.")
    if "train" in counts and (absent := counts[counts["train"] == 0]).size:
        told.append(f"{_classes(len(absent), label)} no track to train on: {_named(absent.index)}.")
    return told


def _classes(n: int, label: str) -> str:
    return f"1 {label} class has" if n == 1 else f"{n:,} {label} classes have"


def _named(names: pd.Index) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(repr(str(n)) for n in names[:NAMED]) + more


def _about_copies(found: pd.DataFrame) -> list[str]:
    groups = copies(found)
    if groups.empty:
        return []
    n, same = len(groups) - groups["same_as"].nunique(), groups.groupby("same_as")
    what = "file is a copy" if n == 1 else "files are copies"
    told = [f"{n:,} {what} of another (the same audio): remove them, or know that they count twice."]
    for label in (c for c in LABELS if c in groups):
        torn = same[label].nunique()
        if (torn > 1).any():
            told.append(f"The same audio has different labels ({label}): {_named(torn.index[torn > 1])}.")
    if "split" in groups and (torn := same["split"].nunique() > 1).any():
        told.append(f"The same audio is in two splits, so that tests are too kind: {_named(torn.index[torn])}.")
    return told


def _about_loudness(found: pd.DataFrame) -> list[str]:
    values = found["rms_db"].dropna() if "rms_db" in found else ()
    if len(values) < 2:
        return []
    low, high = np.quantile(values, [0.05, 0.95])
    told = (
        f"Loudness differs by {high - low:.0f} dB between files, the first thing that is learned: `detilt` removes it."
    )
    return [told] if high - low >= WIDE_DB else []
