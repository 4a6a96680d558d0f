"""Draw the pictures of data/demo/README.md into docs/images/ (`.venv/bin/python data/demo/pictures.py`)."""

import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from vaelib import audio, plots
from vaelib.config import COMPACT, ROOT
from vaelib_demo import CLIPS, render
from vaelib_demo.dials import FIXED, VARIATION
from vaelib_demo.factors import DESK, draw_factors, draw_levels
from vaelib_demo.tables import load_tables
from vaelib_demo.voice import build_bank

GENRE, SECONDS, SEED, SHOWN = "english_synth_pop", 6.0, 0, 4
SETTINGS = {  # composition, variation, fixed
    "default: composition 0,\nvariation 0.3, tempo fixed": (0, VARIATION, FIXED),
    "composition 0.5": (0.5, VARIATION, FIXED),
    "composition 1": (1, VARIATION, FIXED),
    "variation 0": (0, 0, FIXED),
    "variation 1": (0, 1, FIXED),
    "variation 1,\nnothing fixed": (0, 1, ()),
}
LOUD = {"vmin": -40, "vmax": 35}  # dB


def picture(sound: np.ndarray) -> np.ndarray:
    """(mel, frame) in dB of a clip's first window."""
    return audio.log_mel(torch.as_tensor(sound, dtype=torch.float32), COMPACT)[:, : COMPACT.frames].numpy()


def clips(composition: float, variation: float, fixed: tuple[str, ...]) -> list[np.ndarray]:
    """The first clips of the genre as a corpus of usual size has them."""
    tables = load_tables()
    drawn = draw_factors(tables.genres[GENRE], tables, CLIPS["styles"], variation, SEED, fixed)[:SHOWN]
    jobs = [render.Clip(Path(), "styles", GENRE, i, f, SECONDS, SEED, composition) for i, f in enumerate(drawn)]
    return [picture(render.perform(job)[0]) for job in jobs]


def dials() -> plt.Figure:
    """Four clips of one genre at each setting."""
    fig, _ = plots.gallery({name: clips(*dial) for name, dial in SETTINGS.items()}, COMPACT, **LOUD)
    fig.suptitle(f"four clips of {GENRE}, 6 s each (time →, frequency ↑, bright: loud)", fontsize=10)
    return fig


def desk() -> plt.Figure:
    """The five stems alone, and four mixes with their levels."""
    stems = render.desk_stems(SECONDS, SEED)
    mixes = draw_levels(load_tables(), CLIPS["desk"], SEED)[:SHOWN]
    fig, axes = plt.subplots(2, len(DESK), figsize=(11, 4.6), layout="constrained")
    for ax, (name, stem) in zip(axes[0], stems.items(), strict=True):
        plots.spectrogram(picture(stem), COMPACT, ax, f"stem: {name}, 0 dB", **LOUD)[1].set(**plots.BARE)
    for ax, levels in zip(axes[1], mixes, strict=False):
        sound, _ = render.mix(render.Clip(Path(), "desk", render.DESK_GENRE, 0, levels, SECONDS, SEED, 0.0))
        told = "\n".join(f"{name} {level:+.0f} dB".replace("-", "−") for name, level in levels.items())
        plots.spectrogram(picture(sound), COMPACT, ax, f"a mix:\n{told}", **LOUD)[1].set(**plots.BARE)
    axes[1, -1].axis("off")
    return fig


def main() -> None:
    """Draw both."""
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder, "voices.npz")
        if not build_bank(bank):
            raise SystemExit("the pictures show voices: install espeakng-loader")
        render.start_worker(bank)
    for name, fig in (("dials", dials()), ("desk", desk())):
        drawn = io.BytesIO()
        fig.savefig(drawn, dpi=80)
        few = Image.open(drawn).convert("RGB").quantize(64)  # a third of the bytes
        few.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
