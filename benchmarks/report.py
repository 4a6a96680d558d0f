"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .preprocessing import TITLES
from .quality import METRICS, PRECISIONS


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = "|---|" + "---:|" * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(x)} |" for x in lines)])


def number(value: float) -> str:
    """Three significant digits or whole numbers: `4.00`, `13.4`, `1,130`."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".rstrip(".")


def spread(row: dict) -> str:
    """Median and range of the rounds."""
    return f"{number(row['clips_per_s'])} ({number(row['lowest'])} to {number(row['highest'])})"


def times(r: dict) -> str:
    """A ratio and its range: `1.71 (1.65 to 1.80)`."""
    return f"{r['ratio']:.2f} ({r['lowest']:.2f} to {r['highest']:.2f})"


def training_table(rows: Sequence[dict]) -> str:
    """Every training; baselines stand below Conv."""
    heads = ["training", "profile", "batch", "precision", "clips/s", "MFLOP per clip", "limit, clips/s", "share of it",
             "Conv over it"]  # fmt: skip
    lines = []
    for row in rows:
        batch = f"{row['batch_size']}" + (" × 2 windows" if row.get("windows", 1) == 2 else "")
        line = [row["title"], row["profile"], batch, row["precision"], spread(row)]
        if "limit" in row:
            limit = f"{number(row['limit'])} ({row['bound']})"
            line += [number(row["flop_per_clip"] / 1e6), limit, f"{row['share']:.0%}", ""]
        else:
            line += ["", "", "", times(row["conv_over_it"])]
        lines.append(line)
    return table(heads, lines)


def preprocessing_table(parts: Sequence[dict]) -> str:
    """Our store, the librosa loop and decoding alone."""
    lines = []
    for part in parts:
        over = {"librosa": part["over_librosa"], "decode": part["over_decode"]}
        for name in TITLES:
            ours = times(over[name]) if name in over else ""
            lines.append([TITLES[name], part["profile"], f"{part['clips']}", spread(part[name]), ours])
    return table(["preprocessing", "front end", "clips", "clips/s", "ours over it"], lines)


def memory_table(found: dict) -> str:
    """Peak memory of preprocessing, and in words how much of it grows with the clips."""
    megabytes = lambda n: f"{n / 1e6:,.0f} MB"  # noqa: E731
    workers, rows = found["workers"], found["preprocessing"]
    heads = [f"clips preprocessed, {found['profile']}", f"driver, {workers} threads", f"driver, {workers} processes",
             "each process", "after the imports"]  # fmt: skip
    keys = ("threads", "driver", "worker", "imports")
    first = table(heads, [[f"{r['clips']:,}", *(megabytes(r[k]) for k in keys)] for r in rows])
    names = ("driver with threads", "driver with processes", "each process")
    grown, times = {k: rows[-1][k] / rows[0][k] - 1 for k in keys[:3]}, rows[-1]["clips"] / rows[0]["clips"]
    shares = ", ".join(f"{name} {grown[k]:+.1%}" for k, name in zip(grown, names, strict=True))
    return f"{first}\n\n- Memory of preprocessing {times:.3g} times as many clips: {shares}."


def machine_table(result: dict) -> str:
    """Where and when, and what the hardware reached."""
    m, rates = result["machine"], result["rates"]
    what = f"{m['cores']} × {m['processor']}" + (f", {m['gpu']}" if m["gpu"] else "")
    lines = [
        ["date, machine", f"{m['date']}, {what}"],
        ["load before", f"{m['load']}"],
        ["torch, threads", f"{m['torch']}, {m['threads']}"],
        ["command", f"`{result['command']}`"],
    ]
    if rates:
        lines.append(["matrix product, fp32 / bf16", f"{number(rates['matrix_fp32'] / 1e9)} / "
                      f"{number(rates['matrix_bf16'] / 1e9)} GFLOP/s"])  # fmt: skip
        lines.append(["memory, copy", f"{number(rates['memory'] / 1e9)} GB/s"])
    return "\n".join(["| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in lines)])


def markdown(result: dict) -> str:
    """Everything, ready for docs/BENCHMARKS.md."""
    parts = [machine_table(result)]
    parts += [training_table(result["training"])] if result["training"] else []
    parts += [preprocessing_table(result["preprocessing"])] if result["preprocessing"] else []
    parts += [memory_table(result["memory"])] if result.get("memory") else []
    parts += ["\n".join(f"- {line}" for line in result["skipped"])] if result["skipped"] else []
    return "\n\n".join(parts)


def precision_markdown(result: dict) -> str:
    """The comparison of two precisions: a table and a sentence per metric."""
    found = result["metrics"]
    lines = [
        [METRICS[m], *(f"{f['mean'][p]:.5g} ± {f['sd'][p]:.2g}" for p in PRECISIONS), f"{f['difference']:+.2g}"]
        for m, f in found.items()
    ]
    n = len({r["seed"] for r in result["runs"]})
    heads = [f"Conv, {result['profile']}, {result['epochs']} epochs, {n} seeds", "fp32", "bf16", "bf16 − fp32"]
    sentences = [
        f"- {METRICS[m]}: bf16 is {'within' if f['within_seed_noise'] else 'not within'} seed noise of fp32 "
        f"(difference {f['difference']:+.2g}, standard deviation between seeds {max(f['sd'].values()):.2g})."
        for m, f in found.items()
    ]
    return "\n\n".join([table(heads, lines), "\n".join(sentences)])
