"""Every proof on a tiny trained run of every model it speaks about, and proofs whose answer is known."""

import dataclasses
import json
import os
import shutil
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LANGUAGES

from vaelib import proofs
from vaelib.config import InputError
from vaelib.proofs.factors import LIVE_KL, attributes, factors_of
from vaelib.proofs.networks import _orientation, _untrained
from vaelib.proofs.proof import png
from vaelib.runs import Embedding, fit, load_run, plan

SMALL = {"latent": 8, "components": 4}
QUICK = {"epochs": 2, "batch_size": 10, "eval_windows": 2, "precision": "32-true"}
SETTINGS = {
    "basic_vae": {"epochs": 30},  # a fully connected decoder hardly moves at first
    "conv_vae": {},
    "beta_vae": {},
    "vade": {"pretrain_epochs": 1},
    "cvae": {"condition": "language", "prior": "fixed"},
}
# how a proof's sentence names what it must be compared with
CONTROL = {
    "smoothness": "through an untrained decoder",
    "filters": "before training",
    "reconstruction": "always answering the mean training spectrogram",
    "disentanglement": "for permuted factors",
    "traversal": "a dimension that changed all 4 alike would have 25%",
    "separation": "by chance",
    "generate": "(chance 33%)",
    "clustering_comparison": "the best alternative",
    "gmm_components": "than spherical ones",
    "soft_clustering": "permuted labels",
}
PAIRS = [(name, model) for name, (_, models) in proofs.PROOFS.items() for model in models]


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A finished run of every model: two epochs on the tones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        return {
            model: fit(plan(store, model, model_settings=SMALL, **QUICK | changes), store, show=False)
            for model, changes in SETTINGS.items()
        }


@pytest.fixture(scope="module")
def made(trained):
    """Proofs by name and model, each made once."""
    cache = {}

    def make(name, model):
        if (name, model) not in cache:
            cache[name, model] = proofs.PROOFS[name][0](trained[model])
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


def blind(run):
    """The same run on a corpus without factors."""
    return dataclasses.replace(run, store=dataclasses.replace(run.store, attrs=run.store.attrs | {"factors": []}))


# --- all of them ---


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_every_proof_measures_draws_and_names_its_control(trained, made, name, model):
    proof = made(name, model)
    assert (proof.name, proof.subject) == (name, trained[model].name)
    assert len(proof.numbers) >= 3 and np.isfinite(list(proof.numbers.values())).all(), proof.numbers
    assert all(type(v) is float for v in proof.numbers.values())
    said = "It is dead" if name == "traversal" and proof.numbers["KL (nats)"] <= LIVE_KL else CONTROL[name]
    assert said in proof.sentence and "nan" not in proof.sentence and "inf " not in proof.sentence
    assert proof.sentence.endswith(".") and proof.figure.axes
    assert proof.table()["value"].to_dict() == proof.numbers
    assert str(proof).startswith(f"{trained[model].name}: ")


@pytest.mark.parametrize("name", proofs.PROOFS)
def test_a_proof_is_saved_as_picture_and_sentence(made, tmp_path, name):
    proof = made(name, proofs.PROOFS[name][1][0])
    path = proof.save(tmp_path / "new" / "figures")
    assert {p.name for p in path.parent.iterdir()} == {f"{name}.png", f"{name}.txt"}
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
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["disentanglement", "generate"])
def test_a_second_call_gives_the_same_numbers(trained, made, name):
    function, models = proofs.PROOFS[name]
    assert function(trained[models[0]]).numbers == made(name, models[0]).numbers


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("filters", "basic_vae", "fully connected and has no filters: use a convolutional model"),
        ("separation", "conv_vae", "conv_vae has no classes: use a cvae run"),
        ("generate", "vade", "vade has no classes: use a cvae run"),
        ("clustering_comparison", "conv_vae", "conv_vae has no mixture: use a vade run"),
        ("gmm_components", "cvae", "cvae-language-fixed has no mixture: use a vade run"),
        ("soft_clustering", "basic_vae", "basic_vae has no mixture: use a vade run"),
    ],
)
def test_a_proof_refuses_a_model_it_does_not_speak_about(trained, name, model, message):
    assert model not in proofs.PROOFS[name][1]
    with pytest.raises(InputError, match=message):
        proofs.PROOFS[name][0](trained[model])


def test_a_fully_connected_vade_has_no_filters(vade):
    model = dataclasses.replace(vade.config.model, backbone="fc")
    vade.config = dataclasses.replace(vade.config, model=model)
    with pytest.raises(InputError, match="has no filters"):
        proofs.filters(vade)


# --- networks ---


def test_a_decoder_that_does_not_move_is_called_so(conv, recwarn):
    conv.decode = lambda z, y=None: np.full((len(z), 16, 16), 0.4)
    found = proofs.smoothness(conv, pairs=8)
    assert found.numbers["paths that hardly move"] == 1
    assert found.numbers["largest step / mean step"] == np.inf  # never a good mark for standing still
    assert "100% of the paths hardly move" in found.sentence
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_straight_decoder_is_even_and_a_switch_is_not(conv, monkeypatch):
    index, pictures = np.arange(6)[:, None], np.arange(6)[:, None, None] * np.ones((6, 16, 16))
    conv.embed = lambda split: embedding(index)
    conv.reconstruct = lambda split: (pictures, pictures)

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
    assert cut["largest step / mean step"] == pytest.approx(8)


def test_interpolation_needs_two_clips(conv):
    table = conv.store.table.copy()
    table.loc[conv.store.rows("test")[1:], "split"] = "train"
    conv.store = dataclasses.replace(conv.store, table=table)
    with pytest.raises(InputError, match="has 1 test clips; interpolation needs two"):
        proofs.smoothness(conv)


def test_orientation_of_stripes_of_a_checkerboard_and_of_a_constant():
    line = np.array([1.0, -1, 1, -1])
    along_f, along_t = np.tile(line[:, None], 4), np.tile(line, (4, 1))  # (frequency, time)
    checked, flat = np.outer(line, line), np.ones((4, 4))
    selective, leaning = _orientation(np.stack([along_f, along_t, checked, flat]))
    np.testing.assert_allclose(leaning, [1, -1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(selective, [1, 1, 0, 0], atol=1e-12)


def test_filters_counts_stripes_and_knows_an_untrained_model(conv):
    conv.model = _untrained(conv)
    found = proofs.filters(conv).numbers
    assert found["mean relative change by training"] == 0
    assert found["mean selectivity"] == found["mean selectivity at initialisation"]
    stripes = np.tile([1.0, -1, 1, -1], (4, 1))
    kernels = np.stack([stripes] * 20 + [stripes.T] * 12)[:, None]
    weight = conv.model.encoder[0].weight
    weight.data = weight.data.new_tensor(kernels)
    found = proofs.filters(conv)
    assert found.numbers["kernels leaning to time edges (onsets)"] == 20
    assert found.numbers["kernels leaning to frequency edges"] == 12
    assert found.numbers["mean selectivity"] == pytest.approx(1)
    assert "20 lean to edges in time (onsets) and 12 to edges in frequency" in found.sentence


def test_an_untrained_copy_leaves_the_run_and_the_dice_alone(trained):
    run = trained["conv_vae"]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fresh = _untrained(run)
    assert torch.rand(1) == expected
    assert not torch.equal(fresh.encoder[0].weight, run.model.encoder[0].weight)


def test_a_perfect_copy_scores_perfectly_and_the_mean_picture_nothing(conv):
    train, test = conv.reconstruct("train")[0], conv.reconstruct("test")[0]
    conv.reconstruct = lambda split: (train, train) if split == "train" else (test, test)
    assert list(proofs.reconstruction(conv).numbers.values()) == pytest.approx([0, 1, 1, 1, 1])
    mean = np.broadcast_to(train.mean(0), test.shape)
    conv.reconstruct = lambda split: (train, train) if split == "train" else (test, mean)
    found = proofs.reconstruction(conv)
    assert found.numbers["R² against the mean spectrogram"] == pytest.approx(0, abs=1e-9)
    assert found.numbers["MSE per bin"] == pytest.approx(((test - mean) ** 2).mean(), rel=1e-5)
    assert "R² 0.00" in found.sentence or "R² -0.00" in found.sentence


def test_several_runs_stand_side_by_side_two_seeds_of_one_model_too(trained, conv):
    conv.config = dataclasses.replace(conv.config, training=dataclasses.replace(conv.config.training, seed=7))
    test = conv.reconstruct("test")[0]
    conv.reconstruct = lambda split: (test, test)
    found = proofs.reconstruction(trained["conv_vae"], conv, trained["vade"])
    assert found.subject == "conv_vae, seed 0 and conv_vae, seed 7 and vade"
    assert found.sentence.startswith("conv_vae, seed 7 reconstructs best of 3")
    assert found.numbers["conv_vae, seed 7: MSE per bin"] == 0 < found.numbers["conv_vae, seed 0: MSE per bin"]
    assert len(found.numbers) == 15


# --- factors ---


def test_attributes_of_hand_built_spectrograms():
    base = np.zeros((8, 10))
    base[2] = 0.3
    louder, higher = np.zeros((8, 10)), np.zeros((8, 10))
    louder[2], higher[6] = 0.6, 0.3
    pulsed = base * np.array([0, 1] * 5)
    table = attributes(np.stack([base, louder, higher, pulsed, np.zeros((8, 10))]))
    loud, bright, contrast, onset = (table[c].to_numpy() for c in table)
    assert list(table) == ["loudness", "brightness", "contrast", "onset strength"]
    np.testing.assert_allclose(loud, np.array([0.3, 0.6, 0.3, 0.15, 0]) / 8)
    np.testing.assert_allclose(bright, [2 / 7, 2 / 7, 6 / 7, 2 / 7, 0])  # silence has no centroid, and no nan
    np.testing.assert_allclose(contrast[:3], np.array([0.3, 0.6, 0.3]) * np.sqrt(7) / 8)
    np.testing.assert_allclose(onset, [0, 0, 0, 5 * 0.3 / 10, 0])


def known(clips: int = 400, extra: int = 4, seed: int = 0):
    """Factors drawn independently, and a run's stand-in that embeds every clip as its factors beside noise."""
    rng = np.random.default_rng(seed)
    names = ["tempo", "energy", "brightness"]
    table = pd.DataFrame(rng.uniform(size=(clips, 3)), columns=names)
    codes = np.c_[table.to_numpy() * 4 - 2, rng.normal(size=(clips, extra))]
    store = SimpleNamespace(factors=names, table=table, rows=lambda split: table.index, attrs={"corpus": "known"})
    config = SimpleNamespace(training=SimpleNamespace(seed=0))
    return SimpleNamespace(name="known", store=store, config=config, embed=lambda split: embedding(codes))


def test_a_run_that_embeds_the_factors_themselves_is_disentangled():
    found = proofs.disentanglement(known())
    assert found.numbers["MIG"] > 0.8 and found.numbers["MIG with permuted factors, 95th percentile"] < 0.05
    assert found.numbers["MIG after random rotations, mean"] < 0.3
    assert found.numbers["live dimensions"] == 7
    assert "The axes mean more than chance" in found.sentence


def test_a_run_that_embeds_noise_is_not_told_from_chance():
    run = known()
    codes = np.random.default_rng(9).normal(size=(400, 6))
    run.embed = lambda split: embedding(codes)
    found = proofs.disentanglement(run)
    assert found.numbers["MIG"] <= found.numbers["MIG with permuted factors, 95th percentile"] < 0.05
    assert "not distinguishable from chance" in found.sentence


def test_a_factor_that_is_constant_on_test_is_not_the_best():
    run = known()
    run.store.table["tempo"] = 120.0
    found = proofs.disentanglement(run)
    assert np.isnan(found.numbers["MIG of tempo"]) and found.numbers["MIG"] > 0.8
    assert "tempo separates best" not in found.sentence and "nan" not in found.sentence
    run.store.table[:] = 1.0
    assert proofs.name_dimensions(run, np.array([1])) == {1: "tempo, MI 0.00"}


def test_live_dimensions_are_the_informative_ones_first_and_at_least_one():
    assert proofs.live_dimensions(embedding(np.zeros((3, 4)), [0.2, 0.0, 3.0, LIVE_KL])).tolist() == [2, 0]
    assert proofs.live_dimensions(embedding(np.zeros((3, 3)), [0.0, 0.01, 0.0])).tolist() == [1]


def test_dimensions_are_named_after_what_they_know():
    run = known()
    names = proofs.name_dimensions(run, np.array([2, 0]))
    assert list(names) == [2, 0] and names[0] == "tempo, MI 1.00"
    assert names[2] == "brightness, MI 1.00"


def test_a_corpus_without_factors_is_a_sentence_and_names_fall_back(conv):
    run = blind(conv)
    with pytest.raises(InputError, match=r"corpus tones has no factor columns: add numeric ones .*manifest.csv"):
        proofs.disentanglement(run)
    kl = run.embed(None).kl
    assert proofs.name_dimensions(run, np.array([3])) == {3: f"KL {kl[3]:.2f}"}


def test_the_main_factors_are_preferred_to_others():
    run = known()
    assert list(factors_of(run)) == ["tempo", "energy", "brightness"]
    run.store.factors = ["loudness", "brightness", "tempo"]
    assert list(factors_of(run)) == ["tempo", "brightness"]
    run.store.factors, run.store.table["loudness"] = ["loudness"], 1.0
    assert list(factors_of(run)) == ["loudness"]


def test_a_dimension_that_sets_the_loudness_is_found_out(conv):
    codes = np.random.default_rng(0).normal(size=(6, 3))
    conv.embed = lambda split: embedding(codes, [2.0, 0.5, 0.0])
    conv.decode = lambda z, y=None: np.full((len(z), 16, 16), 0.5) - 0.1 * z[:, :1, None]
    found = proofs.traversal(conv)
    low, high = np.percentile(codes[:, 0], [5, 95])
    spread = attributes(conv.reconstruct("test")[0]).std()["loudness"]
    numbers = found.numbers
    assert numbers["dimension"] == 0 and numbers["KL (nats)"] == 2
    effect = numbers["effect on loudness (its own standard deviations)"]
    assert effect == pytest.approx(-0.1 * (high - low) / spread, rel=1e-4)
    assert numbers["share of the effect on its main attribute"] == pytest.approx(1, abs=1e-6)
    assert "z0 carries 2.00 nats. It changes loudness most (-" in found.sentence and "100%" in found.sentence


def test_a_dead_dimension_is_called_dead(conv):
    codes = np.random.default_rng(0).normal(size=(6, 3)) * [1, 1, 0]
    conv.embed = lambda split: embedding(codes, [2.0, 0.5, 0.0])
    conv.decode = lambda z, y=None: np.full((len(z), 16, 16), 0.5) - 0.1 * z[:, :1, None]
    found = proofs.traversal(conv, dimension=2)
    assert "z2 carries 0.00 nats. It is dead" in found.sentence and "changes loudness" not in found.sentence
    assert found.numbers["dimension"] == 2 and np.isfinite(list(found.numbers.values())).all()


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
    assert heard in (0, 0.25, 0.5, 0.75, 1) and "of 12 samples" in found.sentence
    assert len(found.figure.axes) == 4  # one row of four samples
    cvae.sample = lambda n, y, temperature, seed: np.asarray(y)[:, None, None] / 2 * np.ones((16, 16))
    axes = proofs.generate(cvae, n_samples=2).figure.axes  # the rows are the classes, in their order
    assert [a.images[0].get_array().mean() for a in axes] == [0, 0, 0.5, 0.5, 1, 1]


def test_samples_that_are_real_clips_of_their_class_convince_the_judge(cvae):
    real, languages = cvae.reconstruct("train")[0], cvae.labels("train", "language")
    first = {i: real[languages == name] for i, name in enumerate(LANGUAGES)}
    cvae.sample = lambda n, y, temperature, seed: np.stack([first[c][i % 8] for i, c in enumerate(y)])
    right = proofs.generate(cvae, n_samples=3).numbers
    assert right["judge on samples"] == 1 and right["judge on real test clips"] > 0.8 > right["chance"]
    cvae.sample = lambda n, y, temperature, seed: np.stack([first[(c + 1) % 3][i % 8] for i, c in enumerate(y)])
    wrong = proofs.generate(cvae, class_name="arabic", n_samples=3).numbers
    assert wrong["judge on samples"] == wrong["samples of arabic heard as arabic"] == 0


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
    assert "with ARI 1.00 when the encoder is given the label" in found.sentence and "supervised" in found.sentence


# --- mixture ---


def one_hot(run, split, label="genre"):
    return np.eye(len(run.store.classes(label)))[run.store.codes(label, run.store.rows(split))]


def test_clusters_that_are_the_genres_are_ahead_and_one_cluster_is_behind(vade, trained):
    vade.responsibilities = lambda split: one_hot(vade, split)
    found = proofs.clustering_comparison(vade, trained["conv_vae"])
    own = {k: v for k, v in found.numbers.items() if k.startswith("VaDE, argmax")}
    assert list(own.values()) == pytest.approx([1, 1])
    assert {"conv_vae + K-Means: AMI", "conv_vae + GMM: ARI", "PCA of the log-mel + K-Means: AMI"} <= set(found.numbers)
    assert "VaDE is ahead by" in found.sentence
    vade.responsibilities = lambda split: np.ones((len(vade.store.rows(split)), 1))
    found = proofs.clustering_comparison(vade)
    assert found.numbers["VaDE, argmax p(c|clip): AMI"] == pytest.approx(0)
    assert not [k for k in found.numbers if k.startswith("conv_vae")]
    assert "VaDE is behind by" in found.sentence


def test_components_are_counted(vade):
    vade.responsibilities = lambda split: one_hot(vade, split, "language")
    found = proofs.gmm_components(vade)
    assert found.numbers["components with a test clip"] == 3 and found.sentence.startswith("3 of 4 components hold")
    assert found.numbers["effective number of components"] == pytest.approx(3)
    vade.model = _untrained(vade)  # its components are round
    assert proofs.gmm_components(vade).numbers["axis ratio, median over components"] == pytest.approx(1)


def test_confidence_that_is_earned_is_calibrated_and_confidence_in_one_cluster_is_not(vade):
    vade.responsibilities = lambda split: one_hot(vade, split)
    good = proofs.soft_clustering(vade).numbers
    assert good["agreement with the cluster's majority genre"] == good["mean confidence"] == 1
    assert good["expected calibration error"] == good["mean entropy (nats)"] == 0
    assert good["agreement with permuted labels, 95th percentile"] < 1
    vade.responsibilities = lambda split: np.eye(4)[np.zeros(len(vade.store.rows(split)), int)]
    bad = proofs.soft_clustering(vade).numbers
    agreement = bad["agreement with the cluster's majority genre"]
    assert agreement == bad["agreement with permuted labels, 95th percentile"] == pytest.approx(1 / 6)
    assert bad["expected calibration error"] == pytest.approx(5 / 6)


def test_the_most_uncertain_clips_are_named(vade):
    unsure = np.full((6, 2), [0.99, 0.01])
    unsure[4] = 0.5
    vade.responsibilities = lambda split: unsure if split == "test" else np.full((24, 2), [0.99, 0.01])
    path = vade.store.table.loc[vade.store.rows("test")[4], "path"].rsplit("/", 1)[-1]
    assert f"Most uncertain: {path}." in proofs.soft_clustering(vade).sentence


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
    assert row["clusters"] == {"conv_vae": "K-Means, 6", "vade": "own mixture, 4", "cvae": "K-Means, 3"}[model]
    x, copy = run.reconstruct("test")
    assert row["mse"] == pytest.approx(((x - copy) ** 2).mean(), rel=1e-4)
    assert json.loads((run.folder / "metrics.json").read_text()) == pytest.approx(row, nan_ok=True)


def test_a_row_is_kept_until_the_run_is_trained_again(trained, tmp_path):
    run = load_run(shutil.copytree(trained["cvae"].folder, tmp_path / "run"))
    kept, done = run.folder / "metrics.json", run.folder / "done.json"
    kept.unlink(missing_ok=True)
    row = proofs.comparison_row(run)
    kept.write_text(json.dumps(row | {"mse": 123.0}))
    assert proofs.comparison_row(run)["mse"] == 123
    os.utime(done, (kept.stat().st_mtime + 5,) * 2)
    assert proofs.comparison_row(run) == row == json.loads(kept.read_text())


def test_a_row_without_factors_has_no_mig(trained, tmp_path):
    run = blind(load_run(shutil.copytree(trained["basic_vae"].folder, tmp_path / "run")))
    (run.folder / "metrics.json").unlink(missing_ok=True)
    for _ in range(2):  # computed, and read again
        row = proofs.comparison_row(run)
        assert np.isnan(row["mig"]) and np.isnan(row["mig_null_p95"]) and np.isfinite(row["ari"])
