"""Every proof on a tiny trained run of every model it speaks about, and proofs whose answer is known."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import LANGUAGES

from vaelib import proofs
from vaelib.collection import UNLABELLED
from vaelib.config import InputError
from vaelib.metrics import clustering as clu
from vaelib.proofs import mixture
from vaelib.proofs.factors import KNOWN, LIVE_KL, factors_of
from vaelib.proofs.filters import untrained
from vaelib.proofs.proof import png
from vaelib.runs import Embedding, fit, open_run, plan

SMALL = {"latent": 8}
QUICK = {"epochs": 2, "batch_size": 10, "eval_windows": 2, "precision": "32-true"}
SETTINGS = {
    "basic_vae": {"epochs": 30},  # a fully connected decoder hardly moves at first
    "conv_vae": {},
    "beta_vae": {},
    "vade": {"pretrain_epochs": 1, "epochs": 1},  # as many in all as conv_vae: its rival
    "cvae": {"condition": "language", "prior": "fixed"},
}
# how a proof's sentence names what it must be compared with
CONTROL = {
    "smoothness": "through an untrained decoder",
    "filters": "before training",
    "reconstruction": "always answering the mean training spectrogram",
    "disentanglement": "for permuted factors",
    "traversal": "along random directions",
    "separation": "by chance",
    "generate": "chance is 33%",
    "clustering_comparison": "the best alternative",
    "gmm_components": "than spherical ones",
    "soft_clustering": "permuted labels",
    "cluster_contents": "permuted labels",
    "clustering": "the best space without a trained model",
    "hierarchy": "permuted families",
}
EXAMINED = {"filters": {"examined": 2}}  # of 32 units per layer: seconds instead of minutes
PAIRS = [  # the filters of the other models: see test_proofs_filters
    (name, model)
    for name, (_, models) in proofs.PROOFS.items()
    for model in (models[:1] if name in EXAMINED else models)
]


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A finished run of every model: two epochs on the tones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        return {
            model: fit(plan(store, model, model_settings=SMALL | sizes, **QUICK | changes), store, show=False)
            for model, changes in SETTINGS.items()
            for sizes in [{"components": 4} if model == "vade" else {}]
        }


@pytest.fixture(scope="module")
def made(trained):
    """Proofs by name and model, each made once."""
    cache = {}

    def make(name, model):
        if (name, model) not in cache:
            cache[name, model] = proofs.PROOFS[name][0](trained[model], **EXAMINED.get(name, {}))
        return cache[name, model]

    return make


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def conv(trained):
    """A shallow copy of the conv_vae run, whose methods a test may replace."""
    return dataclasses.replace(trained["conv_vae"])


@pytest.fixture
def cvae(trained):
    return dataclasses.replace(trained["cvae"])


@pytest.fixture
def vade(trained):
    return dataclasses.replace(trained["vade"])


def embedding(means, kl=None) -> Embedding:
    means = np.asarray(means, float)
    kl = np.ones(means.shape[1]) if kl is None else np.asarray(kl, float)
    return Embedding(means, np.zeros_like(means), kl, np.arange(len(means)))


def relabelled(run, **columns):
    """The same run on a store whose table has other columns."""
    return dataclasses.replace(run, store=dataclasses.replace(run.store, table=run.store.table.assign(**columns)))


def partly(run, *labels):
    """The same run with every second clip unlabelled; and where the labels of its test clips are left."""
    table = run.store.table
    hidden = np.arange(len(table)) % 2 == 1
    hidden[run.store.rows("test")[0]] = True
    found = relabelled(run, **{c: table[c].where(~hidden, UNLABELLED) for c in labels})
    return found, ~hidden[found.store.rows("test")]


# --- all of them ---


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_every_proof_measures_draws_and_names_its_control(trained, made, name, model):
    proof = made(name, model)
    assert (proof.name, proof.subject) == (name, trained[model].name)
    # six genres with one test clip each have no shape
    known = {k: v for k, v in proof.numbers.items() if not (k.startswith("genre") and k.endswith("of the classes"))}
    assert len(known) >= 3 and np.isfinite(list(known.values())).all(), proof.numbers
    assert all(type(v) is float for v in proof.numbers.values())
    said = "It is dead" if name == "traversal" and proof.numbers["KL (nats)"] <= LIVE_KL else CONTROL[name]
    assert said in proof.sentence and "nan" not in proof.sentence and "inf " not in proof.sentence
    assert proof.sentence.endswith(".") and proof.figure.axes
    assert proof.table()["value"].to_dict() == pytest.approx(proof.numbers, nan_ok=True)
    assert str(proof).startswith(f"{trained[model].name}: ")


@pytest.mark.parametrize("name", proofs.PROOFS)
def test_a_proof_is_saved_as_picture_and_sentence(made, tmp_path, name):
    proof = made(name, proofs.PROOFS[name][1][0])
    path = proof.save(tmp_path / "new" / "figures")
    assert {p.name for p in path.parent.iterdir()} == {f"{name}{kind}" for kind in (".png", ".txt", ".json")}
    assert path.read_bytes().startswith(b"\x89PNG") and plt.imread(path).std() > 0.01
    assert path.with_suffix(".txt").read_text() == proof.sentence


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    figure, ax = plt.subplots()
    proof = proofs.Proof("x", "run", {"a": 1.0}, "One.", figure)
    before = proof.save(tmp_path).read_bytes()
    assert before == png(figure)
    ax.set_title(r"$\frac{$")
    with pytest.raises(ValueError, match="frac"):
        dataclasses.replace(proof, sentence="Two.").save(tmp_path)
    assert (tmp_path / "x.png").read_bytes() == before and (tmp_path / "x.txt").read_text() == "One."
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["disentanglement", "generate"])
def test_a_second_call_gives_the_same_numbers(trained, made, name):
    function, models = proofs.PROOFS[name]
    # the trees of DCI are summed in the order in which they finish
    assert function(trained[models[0]]).numbers == pytest.approx(made(name, models[0]).numbers, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("filters", "basic_vae", "fully connected and has no filters: use a convolutional model"),
        ("separation", "conv_vae", "conv_vae has no classes: use a cvae run"),
        ("generate", "vade", "vade has no classes: use a cvae run"),
        ("clustering_comparison", "conv_vae", "conv_vae has no mixture: use a vade run"),
        ("gmm_components", "cvae", "cvae-language-fixed has no mixture: use a vade run"),
        ("soft_clustering", "basic_vae", "basic_vae has no mixture: use a vade run"),
        ("cluster_contents", "beta_vae", "beta_vae has no mixture: use a vade run"),
    ],
)
def test_a_proof_refuses_a_model_it_does_not_speak_about(trained, name, model, message):
    assert model not in proofs.PROOFS[name][1]
    with pytest.raises(InputError, match=message):
        proofs.PROOFS[name][0](trained[model])


# --- networks ---


def test_a_decoder_that_does_not_move_is_called_so(conv, recwarn):
    conv.decode = lambda z, y=None: np.full((len(z), 16, 16), 0.4)
    found = proofs.smoothness(conv, pairs=8)
    assert found.numbers["paths that hardly move"] == 1 and found.numbers["share of gradual paths"] == 0
    assert found.numbers["largest step / mean step"] == np.inf  # never a good mark for standing still
    assert "Of 8 paths between test clips 0% are gradual" in found.sentence
    assert all(np.isin(found.per_clip.pop(f"{who}share of gradual paths"), (0, 1)).all()
               for who in ("", "untrained decoder: ", "constant decoder: "))  # fmt: skip
    assert not found.per_clip  # an infinite ratio has no mean over paths
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_straight_decoder_is_even_and_a_switch_is_not(conv, monkeypatch):
    index, pictures = np.arange(6)[:, None], np.arange(6)[:, None, None] * np.ones((6, 16, 16))
    conv.embed = lambda split, labels="": embedding(index)
    conv.middle_windows = lambda rows: pictures[np.searchsorted(conv.store.rows("test"), rows)]

    def linear(z, y=None):
        return z[:, :1, None] * np.ones((1, 16, 16))

    conv.decode = linear
    monkeypatch.setattr(proofs.networks, "_decode_with", lambda model, z, y: linear(z))
    even = proofs.smoothness(conv, pairs=8, steps=9).numbers
    conv.decode = lambda z, y=None: linear(np.where(np.arange(9)[:, None] < 4, z[0], z[-1]))
    cut = proofs.smoothness(conv, pairs=8, steps=9).numbers
    assert even["largest step / mean step"] == pytest.approx(1)
    assert even["path length / end-point distance"] == pytest.approx(1)
    assert even["paths that hardly move"] == even["untrained decoder: paths that hardly move"] == 0
    assert even["constant decoder: paths that hardly move"] == 1
    assert even["share of gradual paths"] == even["untrained decoder: share of gradual paths"] == 1
    assert even["constant decoder: share of gradual paths"] == 0
    assert cut["largest step / mean step"] == pytest.approx(8) and cut["share of gradual paths"] == 0


def test_paths_are_scored_one_by_one_as_they_would_be_together(conv, monkeypatch):
    """At full size the decoded pictures of all paths would take gigabytes."""
    real, seen = proofs.networks.paths_smoothness, []

    def spy(paths, reference=None):
        seen.append((np.array(paths), reference))
        return real(paths, reference)

    monkeypatch.setattr(proofs.networks, "paths_smoothness", spy)
    found = proofs.smoothness(conv, pairs=8, steps=5).per_clip["share of gradual paths"]
    assert all(paths.shape == (1, 5, 16, 16) for paths, _ in seen)
    paths, gaps = (np.concatenate(part) for part in zip(*seen[::4], strict=True))
    together = real(paths, gaps)
    assert len(paths) == 8 and np.array_equal(found, proofs.networks._gradual(together))
    ends = np.random.default_rng(0).integers(0, 6, (8, 2))
    ends[:, 1] = np.where(ends[:, 0] == ends[:, 1], (ends[:, 1] + 1) % 6, ends[:, 1])
    x = conv.reconstruct("test")[0]
    np.testing.assert_allclose(gaps, [np.linalg.norm(x[a] - x[b]) for a, b in ends])


def test_the_mean_window_is_that_of_all_clips(conv):
    x = conv.reconstruct("train")[0]
    for block in (5, 64):
        found = proofs.networks.mean_window(conv, "train", block)
        assert found.dtype == np.float32 and found.shape == (16, 16)
        np.testing.assert_allclose(found, x.mean(0), atol=1e-6)


def test_interpolation_needs_two_clips(conv):
    table = conv.store.table.copy()
    table.loc[conv.store.rows("test")[1:], "split"] = "train"
    conv.store = dataclasses.replace(conv.store, table=table)
    with pytest.raises(InputError, match="has 1 test clips; interpolation needs two"):
        proofs.smoothness(conv)


def test_a_perfect_copy_scores_perfectly_and_the_mean_picture_nothing(conv):
    train, test = conv.reconstruct("train")[0], conv.reconstruct("test")[0]
    conv.reconstruct = lambda split: (train, train) if split == "train" else (test, test)
    found = proofs.reconstruction(conv).numbers
    bands = [f"MSE per bin, {third} third of the bands" for third in ("low", "middle", "high")]
    assert [found[k] for k in ("MSE per bin", *bands)] == [0, 0, 0, 0]
    kept = ("R² against the mean spectrogram", "edge energy kept, time", "edge energy kept, frequency")
    assert [found[k] for k in (*kept, "onset-envelope correlation")] == pytest.approx([1, 1, 1, 1])
    mean = np.broadcast_to(train.mean(0), test.shape)
    conv.reconstruct = lambda split: (train, train) if split == "train" else (test, mean)
    found = proofs.reconstruction(conv)
    assert found.numbers["R² against the mean spectrogram"] == pytest.approx(0, abs=1e-9)
    assert found.numbers["MSE per bin"] == pytest.approx(((test - mean) ** 2).mean(), rel=1e-5)
    assert found.numbers["MSE of the mean spectrogram"] == pytest.approx(found.numbers["MSE per bin"], rel=1e-5)
    np.testing.assert_allclose(found.per_clip["MSE per bin"], ((test - mean) ** 2).mean((1, 2)), rtol=1e-5)
    assert {n: np.mean(v) for n, v in found.per_clip.items()} == pytest.approx(
        {n: found.numbers[n] for n in found.per_clip}, abs=1e-9
    )
    assert "R² 0.00" in found.sentence or "R² -0.00" in found.sentence


def test_several_runs_stand_side_by_side_two_seeds_of_one_model_too(trained, conv):
    conv.config = dataclasses.replace(conv.config, training=dataclasses.replace(conv.config.training, seed=7))
    test = conv.reconstruct("test")[0]
    conv.reconstruct = lambda split: (test, test)
    found = proofs.reconstruction(trained["conv_vae"], conv, trained["vade"])
    assert found.subject == "conv_vae, seed 0 and conv_vae, seed 7 and vade"
    assert found.sentence.startswith("conv_vae, seed 7 reconstructs best of 3")
    assert found.numbers["conv_vae, seed 7: MSE per bin"] == 0 < found.numbers["conv_vae, seed 0: MSE per bin"]
    assert len(found.numbers) == 3 * 9
    vade = dataclasses.replace(trained["vade"], config=dataclasses.replace(conv.config, detilt=True))
    with pytest.raises(InputError, match="read different stores or inputs: not to be compared"):
        proofs.reconstruction(conv, vade)


# --- factors ---


def known(clips: int = 400, extra: int = 4, seed: int = 0):
    """Factors drawn independently, and a run's stand-in that embeds every clip as its factors beside noise."""
    rng = np.random.default_rng(seed)
    names = ["tempo", "energy", "brightness"]
    table = pd.DataFrame(rng.uniform(size=(clips, 3)), columns=names)
    codes = np.c_[table.to_numpy() * 4 - 2, rng.normal(size=(clips, extra))]
    store = SimpleNamespace(
        factors=names, table=table, rows=lambda split: table.index.to_numpy(), attrs={"corpus": "known"},
        units={"tempo": "ratio"},
    )  # fmt: skip
    config = SimpleNamespace(training=SimpleNamespace(seed=0))
    patterns = rng.uniform(size=(3, 12))
    seen = (table.to_numpy() @ patterns)[:, :, None]  # windows (clip, 12, 1), a linear mixture of the factors
    return SimpleNamespace(
        name="known", store=store, config=config, embed=lambda split: embedding(codes), middle_windows=lambda r: seen[r]
    )


def test_a_run_that_embeds_the_factors_themselves_is_disentangled():
    found = proofs.disentanglement(known())
    assert found.numbers["MIG"] > 0.8 and found.numbers["MIG with permuted factors, 95th percentile"] < 0.05
    assert found.numbers["MIG after random rotations, 95th percentile"] < 0.3
    assert found.numbers["live dimensions"] == 7
    assert found.numbers["factors with one dimension of their own"] == found.numbers["factors"] == 3
    assert "The axes mean more than chance" in found.sentence and "3 of 3 factors have exactly one" in found.sentence
    # uniform factors mixed in the windows: independent components find them, principal ones do not
    assert found.numbers["MIG of FastICA components"] > 0.5 > found.numbers["MIG of PCA components"] + 0.2
    for name, values in found.per_clip.items():
        assert len(values) == 400 and values.mean() == pytest.approx(found.numbers[name])


def test_a_space_that_knows_the_factors_off_its_axes_means_no_more_than_rotations():
    run = known(extra=0)
    turned = run.embed(None).means @ np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    run.embed = lambda split: embedding(turned)
    found = proofs.disentanglement(run)
    assert found.numbers["MIG with permuted factors, 95th percentile"] < found.numbers["MIG"]
    assert found.numbers["MIG"] < found.numbers["MIG after random rotations, 95th percentile"]
    assert "its axes are not told apart from random directions" in found.sentence
    assert found.numbers["DCI informativeness"] > 0.8  # and yet all is there


def test_a_run_that_embeds_noise_is_not_told_from_chance():
    run = known()
    codes = np.random.default_rng(9).normal(size=(400, 6))
    run.embed = lambda split, labels="": embedding(codes)
    found = proofs.disentanglement(run)
    assert found.numbers["MIG"] <= found.numbers["MIG with permuted factors, 95th percentile"] < 0.05
    assert "not told apart from chance" in found.sentence
    assert found.numbers["dimensions named after a factor"] == 0 and "No dimension stands clear" in found.sentence


def test_a_factor_that_does_not_vary_is_left_out():
    run = known()
    run.store.table["tempo"] = 1.0
    found = proofs.disentanglement(run)
    assert "MIG of tempo" not in found.numbers and found.numbers["MIG"] > 0.8 and found.numbers["factors"] == 2


def test_live_dimensions_are_the_informative_ones_of_the_test_clips_and_at_least_one():
    def live(kl):
        return proofs.live_dimensions(SimpleNamespace(embed={"test": embedding(np.zeros((3, len(kl))), kl)}.get))

    assert live([0.2, 0.0, 3.0, LIVE_KL]).tolist() == [2, 0]
    assert live([0.0, 0.01, 0.0]).tolist() == [1]


def test_dimensions_are_named_after_what_they_know_and_read_on_its_scale():
    run = known()
    found = proofs.meanings(run)
    assert [proofs.label(d, found) for d in range(4)] == ["z0 · tempo", "z1 · energy", "z2 · brightness", "z3"]
    assert found[0].information == pytest.approx(1) and found[3].information < 0.2
    z = run.embed(None).means[:, 0]
    np.testing.assert_allclose(found[0].slope * z + found[0].offset, run.store.table["tempo"], atol=1e-9)
    assert (found[3].slope, found[3].offset) == (0, 0) and [found[d].unit for d in range(2)] == ["ratio", ""]


def test_a_dimension_that_knows_two_factors_alike_is_named_after_neither():
    run = known()
    t = run.store.table
    run.embed = lambda split: embedding(np.c_[t["tempo"] + t["energy"], t["brightness"], np.abs(t["tempo"] - 0.5)])
    found = proofs.meanings(run)
    assert [found[d].factor for d in range(3)] == ["", "brightness", "tempo"]
    assert found[2].slope == 0  # known, but no straight line


def test_a_dimension_that_knows_little_is_named_after_nothing_however_surely_it_knows_it():
    run = known(clips=4000)
    t, rng = run.store.table, np.random.default_rng(5)
    faint = t["tempo"] * 4 + rng.normal(0, 2, len(t))
    run.embed = lambda split: embedding(np.c_[faint, t["brightness"]])
    found = proofs.disentanglement(run)
    assert 0.03 < proofs.meanings(run)[0].information < KNOWN  # far above what permuted factors reach
    assert [proofs.meanings(run)[d].factor for d in range(2)] == ["", "brightness"]
    assert "1 of 2 live dimensions stands clear for one factor each (at least 10% of it known)" in found.sentence


def test_measured_descriptors_stand_in_for_factors_and_the_sentence_says_so(monkeypatch):
    run = known()
    measured = run.store.table.assign(key=np.nan, loudness=run.store.table["energy"])
    measured.loc[3, "loudness"] = measured.loc[: len(measured) // 2, "key"] = np.nan
    measured.loc[399, "key"] = 5.0  # most clips have no key
    run.store.factors = []
    monkeypatch.setattr("vaelib.descriptors.describe", lambda store: measured)
    found = factors_of(run)
    assert found.source == "measured" and list(found.values) == ["tempo", "energy", "brightness", "loudness"]
    assert found.rows.tolist() == [i for i in range(400) if i != 3]  # silent there
    proof = proofs.disentanglement(run)
    assert (
        "descriptors measured in the audio by librosa stand in (tempo, energy, brightness, loudness)" in proof.sentence
    )
    assert proof.numbers["MIG of tempo"] > 0.8
    assert proofs.label(0, proofs.meanings(run)) == "z0 · measured tempo"
    assert "knows of each measured descriptor" in proof.figure.axes[0].get_title()
    assert "measured tempo" in [t.get_text() for t in proof.figure.axes[0].get_xticklabels()]


def test_factors_full_of_gaps_give_way_to_descriptors_and_without_those_are_a_sentence(monkeypatch):
    run = known()
    complete = run.store.table.copy()
    run.store.table.loc[7] = np.nan
    monkeypatch.setattr("vaelib.descriptors.describe", lambda store: complete.add_suffix("_heard"))
    assert list(factors_of(run).values) == ["tempo_heard", "energy_heard", "brightness_heard"]
    assert factors_of(run).source == "measured"
    assert "The corpus has no true factors (or only with gaps)" in proofs.disentanglement(run).sentence
    monkeypatch.setattr("vaelib.descriptors.describe", lambda store: complete * np.nan)
    with pytest.raises(InputError, match=r"known has no factors, and most of its clips no descriptors: fill a column"):
        proofs.disentanglement(run)
    assert proofs.label(3, proofs.meanings(run)) == "z3"


def test_keys_are_names_and_not_a_scale():
    run = known()
    run.store.table["key"] = np.arange(400.0) % 24  # major and minor: more values than bins
    run.store.factors = ["key", "tempo"]
    values = factors_of(run).values
    assert values["key"].dtype.kind == "i" and values["tempo"].dtype.kind == "f"
    run.embed = lambda split: embedding(np.c_[(run.store.table["key"] * 7) % 24, np.zeros(400)], [1.0, 0.0])
    assert proofs.disentanglement(run).numbers["MIG of key"] > 0.8  # one dimension names them, in another order
    assert proofs.disentanglement(run).numbers["SAP"] > 0.4  # a line through them would find next to nothing


def test_a_factor_with_a_gap_in_one_split_is_left_out_of_all():
    run = known()
    table = run.store.table
    table.loc[7, "energy"] = np.nan
    rows = {None: np.arange(400), "train": np.arange(300), "test": np.arange(300, 400)}
    run.store.rows = rows.get
    found = proofs.disentanglement(run).numbers
    assert "MIG of energy" not in found and found["DCI disentanglement"] > 0.8


def test_the_main_factors_are_preferred_to_others():
    run = known()
    assert list(factors_of(run).values) == ["tempo", "energy", "brightness"]
    run.store.factors = ["loudness", "brightness", "tempo"]
    assert list(factors_of(run).values) == ["tempo", "brightness"]
    run.store.factors, run.store.table["loudness"] = ["loudness"], np.arange(400.0)
    assert list(factors_of(run).values) == ["loudness"] and factors_of(run).source == "true"


def desk(clips: int = 60, kl=(2.0, 1.0, 0.0)):
    """Two patterns mixed at levels that the first two of three codes are; the decoder mixes them again."""
    rng = np.random.default_rng(0)
    patterns, levels = rng.uniform(size=(2, 12, 3)), rng.uniform(-2, 2, (clips, 2))
    table = pd.DataFrame(levels * 5, columns=["drums", "bass"])
    rows = {None: np.arange(clips), "train": np.arange(40), "test": np.arange(40, clips)}
    codes = np.c_[levels, np.zeros(clips)]
    mix = lambda z, y=None: 0.5 + 0.1 * np.einsum("nk,kft->nft", z[:, :2], patterns)  # noqa: E731
    store = SimpleNamespace(
        factors=list(table), table=table, rows=rows.get, attrs={"corpus": "desk-60x6s-s0"}, units={}
    )
    return SimpleNamespace(
        name="desk", store=store, config=SimpleNamespace(training=SimpleNamespace(seed=0)), conditional=False,
        embed=lambda split: Embedding(codes[rows[split]], np.zeros((len(rows[split]), 3)), np.array(kl), rows[split]),
        middle_windows=lambda r: mix(codes[r]), decode=mix,
    )  # fmt: skip


def test_a_slider_that_is_a_fader_is_found_out():
    run = desk()
    found = proofs.traversal(run)
    low, high = np.percentile(run.embed("test").means[:, 0], [5, 95])
    spread = run.store.table["drums"][40:].std(ddof=0)
    numbers = found.numbers
    assert numbers["dimension"] == 0 and numbers["KL (nats)"] == 2 and numbers["live dimensions"] == 2
    assert numbers["effect on drums (its own standard deviations)"] == pytest.approx(
        5 * (high - low) / spread, rel=0.02
    )
    assert numbers["mean share over the live dimensions"] > 0.97
    assert 0.5 < numbers["mean share along random directions"] < 0.9
    assert numbers["dimensions named after a factor"] == numbers["of these, dimensions that move it most"] == 2
    assert "z0 · drums carries 2.00 nats. It moves drums most (+" in found.sentence
    assert "R² on real test windows: drums 1.00, bass 1.00)" in found.sentence
    for name, values in found.per_clip.items():
        assert values.mean() == pytest.approx(numbers[name])


def test_a_dead_dimension_is_called_dead():
    found = proofs.traversal(desk(), dimension=2)
    assert "z2 carries 0.00 nats. It is dead" in found.sentence and "It moves" not in found.sentence
    assert found.numbers["dimension"] == 2 and np.isfinite(list(found.numbers.values())).all()
    assert found.numbers["mean share over the live dimensions"] > 0.97  # of the others


def test_what_the_axes_share_out_between_factors_is_no_purer_than_random_directions():
    run = desk()
    straight, decode = run.embed, run.decode
    turn = np.array([[1, -1, 0], [1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    run.embed = lambda split: dataclasses.replace(straight(split), means=straight(split).means @ turn.T)
    run.decode = lambda z, y=None: decode(z @ turn)
    found = proofs.traversal(run).numbers
    assert found["mean share over the live dimensions"] == pytest.approx(0.5, abs=0.05)
    assert found["mean share along random directions"] > 0.55


def test_a_dimension_that_carries_much_and_moves_nothing_is_all_but_dead():
    run = desk()
    run.decode = lambda z, y=None: np.full((len(z), 12, 3), 0.5)
    found = proofs.traversal(run)
    assert "It is all but dead" in found.sentence
    assert found.numbers["mean share over the live dimensions"] == 0.5  # nothing is no main factor


def test_without_two_factors_that_can_be_read_nobody_says_what_moves():
    run = desk()
    run.store.table["bass"] = np.random.default_rng(1).permutation(run.store.table["bass"])
    with pytest.raises(InputError, match=r"windows of desk-60x6s-s0 reads fewer than two factors .*bass -?0\.\d\d"):
        proofs.traversal(run)


@pytest.mark.parametrize("dimension", [-1, 8, 1000])
def test_a_dimension_that_is_not_there(conv, dimension):
    with pytest.raises(InputError, match=rf"dimension {dimension} is not there: conv_vae has dimensions 0 to 7"):
        proofs.traversal(conv, dimension=dimension)
    assert proofs.traversal(conv, dimension=7).numbers["dimension"] == 7


# --- classes ---


def test_an_unknown_class_names_the_nearest(cvae):
    with pytest.raises(InputError, match="unknown class of language 'bengla': did you mean 'bangla'"):
        proofs.generate(cvae, class_name="bengla")


def test_one_class_is_drawn_and_reported(cvae):
    found = proofs.generate(cvae, class_name="bangla", n_samples=4)
    heard = found.numbers["samples of bangla heard as bangla"]
    assert heard in (0, 0.25, 0.5, 0.75, 1) and "Of 12 samples" in found.sentence
    assert len(found.figure.axes) == 5  # one row: a real clip and four samples
    assert [a.get_title() for a in found.figure.axes][:2] == ["a real test clip", "sample 1"]
    assert "samples by language" in found.figure.get_suptitle()
    cvae.sample = lambda n, y, temperature, seed: np.asarray(y)[:, None, None] / 2 * np.ones((16, 16))
    axes = proofs.generate(cvae, n_samples=2).figure.axes  # the rows are the classes, in their order
    assert [axes[i].images[0].get_array().mean() for i in (1, 2, 4, 5, 7, 8)] == [0, 0, 0.5, 0.5, 1, 1]


def test_samples_that_are_real_clips_of_their_class_convince_both_judges(cvae):
    real, languages = cvae.reconstruct("train")[0], cvae.labels("train", "language")
    first = {i: real[languages == name] for i, name in enumerate(LANGUAGES)}
    cvae.sample = lambda n, y, temperature, seed: np.stack([first[c][i % 8] for i, c in enumerate(y)])
    right = proofs.generate(cvae, n_samples=3)
    assert right.numbers["judge on samples"] == 1 and right.numbers["pixels: judge on samples"] > 0.7
    for judge in ("", "pixels: "):
        assert right.numbers[f"{judge}judge on real test clips"] > 0.7 > right.numbers["chance"]
    assert {n: np.mean(v) for n, v in right.per_clip.items()} == pytest.approx(
        {n: right.numbers[n] for n in right.per_clip}
    )
    cvae.sample = lambda n, y, temperature, seed: np.stack([first[(c + 1) % 3][i % 8] for i, c in enumerate(y)])
    wrong = proofs.generate(cvae, class_name="arabic", n_samples=3).numbers
    assert wrong["judge on samples"] == wrong["samples of arabic heard as arabic"] == 0
    assert wrong["pixels: judge on samples"] < wrong["chance"]


def test_smooth_samples_of_the_right_shape_convince_the_judge_of_pixels_alone(cvae):
    """Half the contrast: another spread, the same place of everything."""
    real, languages = cvae.reconstruct("train")[0], cvae.labels("train", "language")
    smooth = {i: real.mean() + (real[languages == name] - real.mean()) / 2 for i, name in enumerate(LANGUAGES)}
    cvae.sample = lambda n, y, temperature, seed: np.stack([smooth[c][i % 8] for i, c in enumerate(y)])
    found = proofs.generate(cvae, n_samples=3).numbers
    assert found["pixels: judge on samples"] > 0.7 > 0.5 > found["judge on samples"]


def test_a_code_that_is_the_label_separates_and_one_without_does_not(cvae):
    rng = np.random.default_rng(0)

    def embed(split, labels="inferred"):
        codes = np.eye(3)[cvae.store.codes("language", cvae.store.rows(split))] * 10
        noise = rng.normal(size=codes.shape)
        return embedding(noise + (codes if labels == "given" else 0))

    cvae.embed = embed
    found = proofs.separation(cvae)
    numbers = found.numbers
    assert numbers["label given (supervised): ARI"] == numbers["label given (supervised): purity"] == 1
    assert numbers["label given (supervised): silhouette of the classes"] > 0.5
    assert numbers["label inferred: silhouette of the classes"] < 0.3
    assert numbers["label inferred: ARI"] < 1 and numbers["chance"] == pytest.approx(1 / 3)
    assert numbers["ARI with permuted labels, 95th percentile"] < 1
    assert "with ARI 1.00 where the encoder is given the label (supervised" in found.sentence
    assert "which the code does, without the label less well" in found.sentence


def test_what_is_said_of_a_prior_follows_from_the_numbers(cvae):
    rng = np.random.default_rng(0)
    cvae.embed = lambda split, labels="inferred": embedding(rng.normal(size=(len(cvae.store.rows(split)), 6)))
    assert "in a place of its own, which it does not" in proofs.separation(cvae).sentence
    config = dataclasses.replace(cvae.config, model=dataclasses.replace(cvae.config.model, prior="standard"))
    cvae.config = config
    assert "asks the code to leave out the class" in proofs.separation(cvae).sentence
    cvae.embed = lambda split, labels="inferred": embedding(10 * one_hot(cvae, split, "language"))
    assert "reads the class from the label-free code with 100%" in (found := proofs.separation(cvae).sentence)
    assert found.endswith("the code still knows it.")


# --- mixture ---


def one_hot(run, split, label="genre"):
    return np.eye(len(run.store.classes(label)))[run.store.codes(label, run.store.rows(split))]


def soft(run, shares):
    """Give a run responsibilities: a function of the split → (clip, K)."""
    run.log_responsibilities = lambda split, tracks=False: np.log(np.maximum(shares(split), 1e-300))


def test_clusters_that_are_the_genres_are_ahead_and_one_cluster_is_behind(vade, trained, monkeypatch):
    soft(vade, lambda split: one_hot(vade, split))
    found = proofs.clustering_comparison(vade)
    assert [found.numbers[f"VaDE: {m}"] for m in ("AMI", "ARI", "NMI")] == pytest.approx([1, 1, 1])
    assert {"VAE + K-Means: AMI", "VAE + GMM: NMI", "PCA of the raw log-mel + K-Means: ARI"} <= set(found.numbers)
    assert "The plain VAE is conv_vae of 2 epochs (VaDE: 2" in found.sentence and "K = 4" in found.sentence
    assert found.partners == (trained["conv_vae"].folder.name,)
    gap = found.numbers["VaDE: ARI"] - found.numbers["VAE + K-Means: ARI"]
    assert found.numbers["ARI, VaDE - VAE + K-Means"] == pytest.approx(gap)
    assert found.numbers["ARI, VaDE - VAE + K-Means, low"] <= gap <= found.numbers["ARI, VaDE - VAE + K-Means, high"]
    soft(vade, lambda split: np.ones((len(vade.store.rows(split)), 1)))
    monkeypatch.setattr(mixture, "rival", lambda run: None)
    found = proofs.clustering_comparison(vade)
    assert found.numbers["VaDE: AMI"] == pytest.approx(0)
    assert not [k for k in found.numbers if k.startswith("VAE +")] and found.partners == ()
    assert "VaDE is ahead" not in found.sentence and "No plain VAE" in found.sentence
    assert "The mixture starts on K-Means clusters of the pretrained codes." in found.sentence


def test_a_mixture_that_moved_no_clip_has_the_clusters_that_kmeans_gave_it(vade, trained, monkeypatch):
    plain = trained["conv_vae"]
    before = dataclasses.replace(vade.config.training, pretrain_epochs=plain.config.training.epochs)
    vade.config = dataclasses.replace(vade.config, training=before)
    monkeypatch.setattr(mixture, "rival", lambda run: plain)
    train, test = (plain.embed_tracks(split).means for split in ("train", "test"))
    given = clu.kmeans_assign(train, test, 4, vade.config.training.seed)
    soft(vade, lambda split: np.eye(4)[given])
    still = "its clusters are the same as K-Means gave it: the joint phase moved no test clip"
    assert still in proofs.clustering_comparison(vade).sentence
    one = np.flatnonzero(given == given[0])[0]
    given[one] = (given[one] + 1) % 4
    assert still not in proofs.clustering_comparison(vade).sentence


def test_the_rival_is_a_plain_run_trained_as_long_in_all_else_the_pretraining(vade, trained):
    conv = trained["conv_vae"].folder
    assert mixture.rival(vade).folder == conv  # two epochs, as many as VaDE in all
    before = vade.config
    for change, there in (({"pretrain_epochs": 2, "epochs": 5}, True), ({"pretrain_epochs": 3, "epochs": 5}, False),
                          ({"lr": 5e-4}, False), ({"sigma": 0.2}, False), ({"seed": 3}, False)):  # fmt: skip
        vade.config = dataclasses.replace(before, training=dataclasses.replace(before.training, **change))
        assert (mixture.rival(vade) is not None) == there, change


def test_all_clusterings_beside_a_mixture_have_as_many_clusters(vade, made):
    alone, beside = made("clustering", "vade").numbers, made("clustering_comparison", "vade").numbers
    assert alone["genre: clusters"] == beside["clusters"] == 4  # of six genres
    name = "MFCC statistics + K-Means"
    assert alone[f"genre: {name}, ARI"] == beside[f"{name}: ARI"]


def test_what_components_hold_is_told_with_its_chance(vade):
    soft(vade, lambda split: np.c_[one_hot(vade, split, "language"), np.zeros(len(vade.store.rows(split)))])
    found = proofs.cluster_contents(vade).numbers
    assert found["components with a test clip"] == 3 and found["share of components with a test clip"] == 0.75
    assert found["homogeneity of language"] == pytest.approx(1)
    # two genres in each of three components: log 3 of log 6; both families in each: nothing
    assert found["homogeneity of genre"] == pytest.approx(np.log(3) / np.log(6))
    assert found["homogeneity of family"] == pytest.approx(0, abs=1e-9)


def test_components_are_counted(vade):
    soft(vade, lambda split: one_hot(vade, split, "language"))
    found = proofs.gmm_components(vade)
    assert found.numbers["components with a test clip"] == 3 and found.sentence.startswith("3 of 4 components hold")
    assert found.numbers["effective number of components"] == pytest.approx(3)
    vade.model = untrained(vade)  # its components are round
    assert proofs.gmm_components(vade).numbers["axis ratio, median over components"] == pytest.approx(1)


def test_confidence_that_is_earned_is_calibrated_and_confidence_in_one_cluster_is_not(vade):
    languages = relabelled(vade, genre=vade.store.table["language"])
    soft(languages, lambda split: np.c_[one_hot(vade, split, "language"), np.zeros(len(vade.store.rows(split)))])
    found = proofs.soft_clustering(languages)
    assert "It is always sure, so its calibration error, 0.000, is its share of wrong clips" in found.sentence
    good = found.numbers
    assert good["agreement with the cluster's majority genre"] == 1
    assert good["mean confidence"] == good["mean confidence, temperature 1"] == pytest.approx(1)
    assert good["expected calibration error"] == pytest.approx(0) == good["mean entropy (nats)"]
    assert good["agreement with permuted labels, 95th percentile"] < 1
    soft(vade, lambda split: np.eye(4)[np.zeros(len(vade.store.rows(split)), int)])
    found = proofs.soft_clustering(vade)
    bad, agreement = found.numbers, found.numbers["agreement with the cluster's majority genre"]
    assert agreement == bad["agreement with permuted labels, 95th percentile"] == pytest.approx(1 / 6)
    assert bad["expected calibration error, temperature 1"] == pytest.approx(5 / 6)
    assert bad["expected calibration error"] < 0.15  # one in six of the validation clips agrees as well
    assert bad["temperature"] > 100 and "fitted on the genres of the validation clips" in found.sentence
    assert "Its calibration error is 0.833 as trained" in found.sentence and "nearer to a second" not in found.sentence


def test_clips_are_ranked_by_their_margin_and_those_half_way_lie_between(vade):
    """All probabilities are rounded to 1, as they are in 128 dimensions."""
    means = vade.model.mixture["means"].detach().numpy()
    codes = np.tile(means[0], (6, 1))
    codes[4] = (means[0] + means[1]) / 2
    margin = np.full(6, 500.0)
    margin[4] = 60.0
    vade.embed = lambda split, labels="": embedding(codes if split == "test" else np.tile(means[0], (24, 1)))
    rows = {"train": np.full(24, 500.0), "validation": np.full(6, 500.0), "test": margin}
    vade.log_responsibilities = lambda split, tracks=False: np.c_[
        np.zeros(len(rows[split])), -rows[split], np.full((len(rows[split]), 2), -900.0)
    ]
    table = mixture.uncertainty(vade)
    assert table["row"][0] == vade.store.rows("test")[4] and table["margin"].tolist() == [60] + [500] * 5
    assert table["ratio"].tolist() == pytest.approx([1] + [0] * 5) and (table["plain_confidence"] == 1).all()
    assert set(table["first"]) == {0} and set(table["second"]) == {1} and set(table["second_genre"]) == {""}
    found = proofs.soft_clustering(vade)
    names = ", ".join(Path(vade.store.name(r)).stem for r in table["row"][:3])
    assert found.sentence.endswith(f"Least certain: {names}.")
    assert found.numbers["distance to the likeliest component / to the second, least confident quarter"] > 0.99


# --- clusters ---


def test_codes_that_are_the_labels_cluster_perfectly_and_noise_does_not(conv):
    rng = np.random.default_rng(0)
    conv.embed = lambda split, labels="": embedding(
        10 * one_hot(conv, split) + 0.1 * rng.normal(size=(len(conv.store.rows(split)), 6))
    )
    found = proofs.clustering(conv).numbers
    assert found["genre: ARI"] == found["genre: AMI"] == found["genre: purity"] == pytest.approx(1)
    assert found["genre: read from the code by a linear probe"] == 1 and found["genre: chance"] == pytest.approx(1 / 6)
    conv.embed = lambda split, labels="": embedding(np.zeros((len(conv.store.rows(split)), 6)))
    found = proofs.clustering(conv).numbers
    assert found["genre: AMI"] == pytest.approx(0, abs=1e-9) and found["language: ARI"] == 0


def test_clips_without_a_label_are_not_scored(conv):
    run, there = partly(conv, "genre")
    assert 2 <= there.sum() < len(there)
    assert proofs.clusters.known(run, "test", "genre").tolist() == there.tolist()
    right = one_hot(conv, "test").argmax(1)
    wrong = np.where(there, right, 0)  # mixes those without a label into the first cluster
    seen = []
    for clusters in (right, wrong):
        run.embed = lambda split, labels="": embedding(10 * one_hot(conv, split))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(proofs.clusters, "own_clusters", lambda run, k, c=clusters: seen.append(k) or c)
            found = proofs.clustering(run).numbers
        assert found["genre: ARI"] == found["genre: V-measure"] == pytest.approx(1)
        assert found["genre: chance"] == pytest.approx(1 / there.sum())
    labelled = set(run.labels("train", "genre")) - {UNLABELLED}
    assert seen == [len(labelled), 3] * 2  # genres, languages: "unlabelled" is no class


def test_no_labels_are_nothing_to_cluster_by(conv):
    run = relabelled(conv, genre=UNLABELLED, language="arabic")
    with pytest.raises(InputError, match="has fewer than two genres and languages: clusters need labels to meet"):
        proofs.clustering(run)


@pytest.mark.parametrize("name", ["clustering_comparison", "soft_clustering", "cluster_contents"])
def test_a_mixture_is_judged_by_the_labelled_clips(trained, name):
    found = proofs.PROOFS[name][0](partly(trained["vade"], "genre")[0])
    assert np.isfinite(list(found.numbers.values())).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hierarchy", "has 0 genres in 0 families: a tree of classes needs at least three"),
        ("clustering_comparison", "has no genres in train or in test: clusters need labels to meet"),
        ("soft_clustering", "has no genres in train or in test: clusters need labels to meet"),
    ],
)
def test_a_corpus_without_genres_is_a_sentence(trained, name, message):
    with pytest.raises(InputError, match=message):
        proofs.PROOFS[name][0](relabelled(trained["vade"], genre=UNLABELLED))


def test_components_without_any_labels_are_still_counted(trained):
    run = relabelled(trained["vade"], genre=UNLABELLED, family=UNLABELLED, language=UNLABELLED)
    found = proofs.cluster_contents(run).numbers
    assert found["components"] == 4 and not [k for k in found if "homogeneity" in k]


def test_a_tree_that_follows_the_families_agrees_with_them(conv):
    def embed(split, labels=""):
        names = conv.labels(split, "genre")
        folk = np.array([n.endswith("folk") for n in names])[:, None]
        return embedding(np.c_[100.0 * folk, one_hot(conv, split)])

    conv.embed = embed
    found = proofs.hierarchy(conv).numbers
    assert found["cophenetic agreement with the families"] == pytest.approx(1)
    assert found["agreement with permuted families, 95th percentile"] <= 1
    assert found["p-value"] == pytest.approx(0.1, abs=0.04)  # 1 of the 10 ways to part six genres into two threes
    with pytest.raises(InputError, match="has 6 genres in 1 families: a tree of classes needs at least three genres"):
        proofs.hierarchy(relabelled(conv, family="all"))


# --- the row of the comparison ---

METRICS = ("mse", "ari", "ami", "nmi", "purity", "silhouette", "mig", "parameters", "clips_per_s")


@pytest.mark.parametrize("model", ["conv_vae", "vade", "cvae"])
def test_a_row_has_every_metric(trained, model):
    run = trained[model]
    row = proofs.comparison_row(run)
    undefined = [] if model == "cvae" else ["silhouette"]  # six genres, one test clip each
    assert [m for m in METRICS if not np.isfinite(row[m])] == undefined
    assert (row["model"], row["run"], row["epochs"]) == (run.name, run.folder.name, run.config.training.total_epochs)
    assert row["classes"] == ("language" if model == "cvae" else "genre")
    assert row["clusters"] == ("own mixture, 4" if model == "vade" else "K-Means")
    x, copy = run.reconstruct("test")
    assert row["mse"] == pytest.approx(((x - copy) ** 2).mean(), rel=1e-4)
    assert row["parameters"] == run.model.parameter_count()


def test_a_row_without_labels_and_factors_has_gaps_where_they_are_needed(trained, tmp_path):
    run = open_run(shutil.copytree(trained["basic_vae"].folder, tmp_path / "run"))
    shutil.rmtree(run.folder / "figures", ignore_errors=True)
    run = relabelled(run, tempo=np.nan, energy=np.nan, genre=UNLABELLED, language=UNLABELLED)
    row = proofs.comparison_row(run)  # for factors, descriptors of the audio stand in
    assert {m for m in METRICS if np.isnan(row[m])} == {"ari", "ami", "nmi", "purity", "silhouette"}
