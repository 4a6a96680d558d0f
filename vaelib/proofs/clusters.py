"""Proofs about clips in the latent space: clusters against labels and baselines, and the tree of the classes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from .. import plots
from ..collection import UNLABELLED
from ..config import InputError
from ..metrics import clustering as base
from ..metrics import clustering as clu
from ..metrics.judges import cophenetic_agreement, linear_probe
from ..models import VaDE
from ..runs import Run
from ..windows import Clips
from .filters import untrained
from .proof import Proof

LABELS = ("genre", "language")


def number_of_clusters(run: Run, classes: int) -> int:
    """How many clusters a run is scored with: VaDE's components, else as many as there are classes; never more than
    training tracks.
    """
    wanted = run.config.model.components if isinstance(run.model, VaDE) else classes
    return min(wanted, len(run.rows("train", True)))


def own_clusters(run: Run, k: int) -> np.ndarray:
    """(track,) clusters of test: VaDE's own components, else K-Means fitted on train."""
    if isinstance(run.model, VaDE):
        return run.log_responsibilities("test", tracks=True).argmax(1)
    train, test = (run.embed_tracks(split).means for split in ("train", "test"))
    return clu.kmeans_assign(train, test, k, run.config.training.seed)


def windows(run: Run, split: str, detilt: bool | None = None) -> np.ndarray:
    """(clip, W, mel, frame): what the model sees of a split; with another `detilt`, what it would have seen."""
    clips = run.clips(split)
    if detilt is not None and detilt != run.config.detilt:
        clips = Clips.read(run.store, run.store.fit_scaler(detilt), run.store.rows(split))
    n = clips.distinct(run.config.training.eval_windows)
    return clips.even_windows(torch.arange(len(clips)), n).squeeze(2).numpy()


def baseline_spaces(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings of tracks without training, (train, test) each: PCA, MFCC statistics, an untrained encoder; raw-input
    PCA.
    """
    train, test = windows(run, "train"), windows(run, "test")
    pca = base.pca_codes(train, test)
    raw = base.pca_codes(windows(run, "train", False), windows(run, "test", False)) if run.config.detilt else pca
    spaces = {
        "PCA of the log-mel": pca,
        "MFCC statistics": base.standardised(base.mfcc_statistics(train), base.mfcc_statistics(test)),
        "untrained encoder": (_untrained_codes(run, train), _untrained_codes(run, test)),
        "PCA of the raw log-mel": raw,
    }
    return {name: (run.of_tracks("train", a), run.of_tracks("test", b)) for name, (a, b) in spaces.items()}


@torch.inference_mode()
def _untrained_codes(run: Run, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
    model, flat = untrained(run), torch.from_numpy(x.reshape(-1, 1, *x.shape[2:]))
    means = [model.encode(flat[i : i + batch_size]).mean for i in range(0, len(flat), batch_size)]
    return torch.cat(means).unflatten(0, x.shape[:2]).mean(1).numpy()


def known(run: Run, split: str, label: str, tracks: bool = False) -> np.ndarray:
    """(clip,) whether a clip of the split has the label; with `tracks`, (track,)."""
    return run.labels(split, label, tracks) != UNLABELLED


def clustering(run: Run) -> Proof:
    """Clusters of the test tracks against genres and languages, with baselines, permuted labels and shape scores.

    All have the same number of clusters: that of the classes, or of VaDE's components. Conditional models encode
    without the label. Clips without a label are not scored.

    Raises:
        InputError: the corpus has fewer than two genres and fewer than two languages.
    """
    seed, numbers, per_clip, shown, spaces = run.config.training.seed, {}, {}, {}, None
    train, test = run.embed_tracks("train").means, run.embed_tracks("test").means
    for label in LABELS:
        truth, there = run.labels("test", label, True), known(run, "test", label, True)
        train_truth, train_there = run.labels("train", label, True), known(run, "train", label, True)
        k = len(set(train_truth[train_there]))
        if k < 2 or len(set(truth[there])) < 2:
            continue
        k = number_of_clusters(run, k)
        found = own_clusters(run, k)
        numbers[f"{label}: clusters"] = float(k)
        scores = clu.cluster_scores(truth[there], found[there])
        names = {"ari": "ARI", "ami": "AMI", "nmi": "NMI", "v_measure": "V-measure", "accuracy": "Hungarian accuracy"}
        numbers |= {f"{label}: {names.get(m, m)}": v for m, v in scores.items()}
        for name, metric in (("ARI", adjusted_rand_score), ("AMI", clu.adjusted_mutual_info)):
            null = clu.permutation_null(metric, truth[there], found[there], n=50)
            numbers[f"{label}: {name} with permuted labels, 95th percentile"] = null.p95
            per_clip[f"{label}: {name}"] = clu.leave_one_out_values(metric, truth[there], found[there])
        shape = clu.geometry_scores(test[there], truth[there])
        shape_names = {"silhouette": "silhouette", "davies_bouldin": "Davies-Bouldin",
                       "calinski_harabasz": "Calinski-Harabasz"}  # fmt: skip
        numbers |= {f"{label}: {shape_names[m]} of the classes": v for m, v in shape.items()}
        if not np.isnan(shape["silhouette"]):
            per_clip[f"{label}: silhouette of the classes"] = silhouette_samples(test[there], truth[there])
        probe = linear_probe(train[train_there], train_truth[train_there], test[there], truth[there], seed)
        numbers[f"{label}: read from the code by a linear probe"] = probe.balanced_accuracy
        numbers[f"{label}: chance"] = probe.chance
        spaces = spaces or baseline_spaces(run)
        rivals = {name: clu.kmeans_assign(a, b, k, seed)[there] for name, (a, b) in spaces.items()}
        others = {name: clu.cluster_scores(truth[there], a) for name, a in rivals.items()}
        for name, other in others.items():
            numbers[f"{label}: {name} + K-Means, purity"] = other["purity"]
            for m, metric in (("ARI", adjusted_rand_score), ("AMI", clu.adjusted_mutual_info)):
                numbers[f"{label}: {name} + K-Means, {m}"] = other[m.lower()]
                values = clu.leave_one_out_values(metric, truth[there], rivals[name])
                per_clip[f"{label}: {name} + K-Means, {m}"] = values
        if not shown:
            shown = {f"{run.name} ({label})": scores["ami"]} | {
                name: other["ami"] for name, other in others.items()
                if run.config.detilt or not name.endswith("raw log-mel")  # else it is the same bar twice
            }  # fmt: skip
            bar = numbers[f"{label}: AMI with permuted labels, 95th percentile"]
            first = label
    if not shown:
        raise InputError(f"{run.store.path.name} has fewer than two genres and languages: clusters need labels to meet")
    k, ami, chance = (numbers[f"{first}: {name}"] for name in ("clusters", "AMI", "chance"))
    figure, _ = plots.bars(shown, dict.fromkeys(shown, bar), f"AMI with the {first} on test, K = {k:.0f}")
    rival = max((n for n in shown if not n.startswith(run.name)), key=shown.get)
    whose = "Its own components" if isinstance(run.model, VaDE) else "K-Means clusters of its codes"
    order = "more than" if ami > shown[rival] else "no more than"
    read = numbers[f"{first}: read from the code by a linear probe"]
    more = read > numbers[f"{first}: Hungarian accuracy"] + 0.1
    sentence = (
        f"{whose} (K = {k:.0f}) agree with the {first} at AMI {ami:.3f} and ARI {numbers[f'{first}: ARI']:.3f} on test "
        f"(permuted labels: {bar:.3f}): {order} the best space without a trained model, {rival} + K-Means with the "
        f"same K (AMI {shown[rival]:.3f}). A linear probe reads the {first} from the code in {read:.0%} of the cases "
        f"(chance {chance:.0%}){': the code knows much that the clusters do not find' if more else ''}. One seed."
    )
    return Proof("clustering", run.name, numbers, sentence, figure, per_clip)


def hierarchy(run: Run) -> Proof:
    """Do genres of one family lie together? The tree of the genres' centroids against the families.

    Raises:
        InputError: fewer than three genres, or families that do not group them.
    """
    there = known(run, "test", "genre", True)
    codes, genres = run.embed_tracks("test").means[there], run.labels("test", "genre", True)[there]
    family_of = dict(zip(genres, run.labels("test", "family", True)[there], strict=True))
    names = sorted(family_of)
    families = np.array([family_of[n] for n in names])
    centroids = np.array([codes[genres == n].mean(0) for n in names])
    found = cophenetic_agreement(centroids, families)
    if np.isnan(found.correlation):
        raise InputError(
            f"{run.store.path.name} has {len(names)} genres in {len(set(families))} families: a tree of classes needs "
            "at least three genres, of which some share a family and some do not"
        )
    flat = run.of_tracks("test", windows(run, "test").mean((1, 3)))[there]
    spectra = cophenetic_agreement(np.stack([flat[genres == n].mean(0) for n in names]), families)
    numbers = {
        "cophenetic agreement with the families": found.correlation,
        "agreement with permuted families, 95th percentile": found.null_p95,
        "p-value": found.p_value,
        "agreement of the mean spectra's tree": spectra.correlation,
    }
    figure, _ = plots.dendrogram(linkage(centroids, "average"), names, families,
                                 f"{run.name}: tree of the genres' centroids, leaves coloured by family")  # fmt: skip
    if found.p_value < 0.05:
        said = "Genres of one family are joined earlier than others"
        plain = "no earlier than by" if found.correlation <= spectra.correlation else "earlier than by"
        said += f", {plain} the plain mean spectra"
    else:
        said = (
            "Genres of one family are not joined earlier than chance would join them: the tree follows something else"
        )
    sentence = (
        f"{said} (cophenetic correlation {found.correlation:.2f}, p = {found.p_value:.3f}; permuted families: "
        f"{found.null_p95:.2f} at the 95th percentile; the tree of the mean spectra: {spectra.correlation:.2f}). The "
        "families are those written in the corpus."
    )
    return Proof("hierarchy", run.name, numbers, sentence, figure)
