"""The figures as Markdown: one table for each question of docs/BENCHMARKS.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vaelib.config import InputError

from .preprocessing import TITLES
from .quality import METRICS, PRECISIONS


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = "|---|" + "---:|" * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(x)} |" for x in lines)])


def replaced(page: str, name: str, text: str) -> str:
    """The page with `text` between the comments `<!-- name -->` and `<!-- / -->`; other figures stay as they are."""
    block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(\n<!-- / -->)", re.DOTALL)
    if not block.search(page):
        raise InputError(f"docs/BENCHMARKS.md has no place for {name!r}: a line `<!-- {name} -->`, then `<!-- / -->`")
    return block.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page)


def machine_line(about: dict) -> str:
    """When, where and how."""
    m = about["machine"]
    flags, gpu = f" ({', '.join(m['flags'])})" if m["flags"] else "", f", {m['gpu']}" if m["gpu"] else ""
    return (f"{m['date']}, commit {m['commit']}; {m['cores']} × {m['processor']}{flags}{gpu}, load {m['load']}; "
            f"torch {m['torch']}, {m['threads']} threads: `{about['command']}`")  # fmt: skip


def number(value: float) -> str:
    """Three significant digits or whole numbers: `4.00`, `13.4`, `1,130`."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".rstrip(".")


def spread(row: dict) -> str:
    """Median and range of the rounds."""
    return f"{number(row['clips_per_s'])} ({number(row['lowest'])} to {number(row['highest'])})"


def times(r: dict) -> str:
    """A ratio and its range: `1.71 (1.65 to 1.80)`."""
    return f"{r['ratio']:.2f} ({r['lowest']:.2f} to {r['highest']:.2f})"


def training_tables(found: dict) -> str:
    """Every training; baselines stand below Conv. Below: what the hardware reached."""
    heads = ["training", "profile", "batch", "precision", "clips/s", "MFLOP per clip", "limit, clips/s", "share of it",
             "Conv over it"]  # fmt: skip
    lines = []
    for row in found["rows"]:
        batch = f"{row['batch_size']}" + (" × 2 windows" if row.get("windows", 1) == 2 else "")
        line = [row["title"], row["profile"], batch, row["precision"], spread(row)]
        if "limit" in row:
            limit = f"{number(row['limit'])} ({row['bound']})"
            line += [number(row["flop_per_clip"] / 1e6), limit, f"{row['share']:.0%}", ""]
        else:
            line += ["", "", "", times(row["conv_over_it"])]
        lines.append(line)
    fp32, bf16, memory = (number(found["rates"][name] / 1e9) for name in ("matrix_fp32", "matrix_bf16", "memory"))
    rates = f"Matrix product {fp32} (fp32) and {bf16} GFLOP/s (bf16); copy {memory} GB/s."
    return "\n\n".join([table(heads, lines), " ".join([rates, *found["skipped"]])])


def preprocessing_table(parts: Sequence[dict]) -> str:
    """Our store, the librosa loop and decoding alone."""
    lines = []
    for part in parts:
        over = {"librosa": part["over_librosa"], "decode": part["over_decode"]}
        for name in TITLES:
            ours = times(over[name]) if name in over else ""
            lines.append([TITLES[name], part["profile"], f"{part['clips']}", spread(part[name]), ours])
    return table(["preprocessing", "front end", "clips", "clips/s", "ours over it"], lines)


def growth_table(rows: Sequence[dict]) -> str:
    """Memory and time against the number of clips; the last column says how much the largest takes of the smallest."""
    heads = {"driver": "memory of preprocessing, 2 threads (MB)", "build_s": "preprocessing (s)",
             "kmeans_s": "K-Means, 45 clusters (s)", "map_s": "UMAP (s)",
             "neighbours_s": "neighbours of all (s)", "page_s": "saved list of clips (s)",
             "page_bytes": "its size (MB)"}  # fmt: skip
    lines = []
    for key, title in heads.items():
        values = [row[key] / (1 if key.endswith("_s") else 1e6) for row in rows]
        lines.append([title, *map(number, values), f"{values[-1] / values[0]:.3g}"])
    grown = rows[-1]["clips"] / rows[0]["clips"]
    return table(["clips", *(f"{row['clips']:,}" for row in rows), f"× ({grown:.3g} × the clips)"], lines)


def batch_table(rows: Sequence[dict]) -> str:
    """Seconds of each notebook, and how many no cell took."""
    whole = {"run": "all", "seconds": sum(r["seconds"] for r in rows), "around": sum(r["around"] for r in rows)}
    lines = [
        [str(r["run"]), f"{r['seconds']:.0f}", f"{r['around']:.1f}", f"{r['around'] / r['seconds']:.0%}"]
        for r in [*rows, whole]
    ]
    return table(["notebook", "seconds", "around its cells", "share"], lines)


def explorers_table(found: dict) -> str:
    """What a pointer's move waits for."""
    rows = [[where, *(f"{r['picture'][k]}" for k in ("count", "median", "p95", "max")), f"{r['sound']['median']}"]
            for where, r in found.items()]  # fmt: skip
    return table(["page", "moves", "picture, median (ms)", "p95", "max", "sound, median (ms)"], rows)


def precision_table(found: dict) -> str:
    """Two precisions: means and deviations over the seeds."""
    lines = []
    for name, f in found["metrics"].items():
        ends = (f"{f['mean'][p]:.5g} ± {f['sd'][p]:.2g}" for p in PRECISIONS)
        lines.append([METRICS[name], *ends, f"{f['difference']:+.2g}", "yes" if f["within_seed_noise"] else "no"])
    title = f"Conv, {found['profile']}, {found['epochs']} epochs, {len(found['runs']) // 2} seeds"
    return table([title, "fp32", "bf16", "bf16 − fp32", "within seed noise"], lines)
