"""Plans: what a file expands to and in which order, what is refused and where, which runs belong to it."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from conftest import TINY, write_tones

from vaelib import engine, plans, runs
from vaelib.config import ROOT, InputError
from vaelib.jobs import MODEL_NOTEBOOKS, Job, NotebookFailedError, Outcome
from vaelib.plans import read_plan, runs_of, training_jobs
from vaelib.preprocess import build_store
from vaelib.store import open_store

QUICK = {"batch_size": 10, "eval_windows": 2, "precision": "32-true"}
SMALL = {"latent": 8, "components": 4}


@pytest.fixture
def written(tmp_path):
    """Writes a plan and reads it."""

    def read(text: str, *changes: str) -> plans.Plan:
        (tmp_path / "plan.yaml").write_text(text)
        return read_plan(tmp_path / "plan.yaml", changes)

    return read


def said(plan: plans.Plan) -> list[str]:
    """Titles of the trainings without the number of the notebook."""
    return [job.title.partition("_")[2] for job in training_jobs(plan)]


# --- expansion and order ---


def test_grids_seeds_and_defaults(written):
    plan = written(
        "seeds: [0, 1]\n"
        "defaults: {epochs: 3, priors: fixed}\n"
        "runs:\n  - {model: beta_vae, beta: [2, 8.5]}\n  - {model: cvae, condition: [language, genre], epochs: 5}\n"
    )
    first = [
        "beta_vae-3epochs-beta2-seed0", "beta_vae-3epochs-beta8.5-seed0",
        "conditional_vae-language-fixed-5epochs-seed0", "conditional_vae-genre-fixed-5epochs-seed0",
    ]  # fmt: skip
    assert said(plan) == first + [title.replace("seed0", "seed1") for title in first]
    job = training_jobs(plan)[0]
    assert job.parameters == {"store": str(plan.corpora[0].store), "desk": "", "epochs": 3, "beta": 2.0, "seed": 0}
    assert isinstance(job.parameters["beta"], float)  # as the notebook's default, so that both spellings are one job
    assert plan.corpora[0].store.name == "demo-40x6s-c0-v0.3-tempo-s0-compact.zarr" and plan.seeds == (0, 1)


def test_the_longest_comes_first_and_then_whoever_others_wait_for(written):
    plan = written(
        "seeds: [1, 0]\nruns:\n  - model: cvae\n  - {model: vade, epochs: 9}\n  - {model: conv_vae, epochs: 9}\n"
        "  - model: [conv_vae, beta_vae]\n  - model: basic_vae\n"
    )
    order = ["beta_vae", "basic_vae", "conv_vae-9epochs", "conv_vae", "vade-9epochs", "conditional_vae-language"]
    assert said(plan) == [f"{name}-seed{seed}" for seed in (1, 0) for name in order]


def test_the_same_run_twice_is_one(written):
    plan = written("runs:\n  - model: vade\n  - {model: vade, epochs: 40}\n", "epochs=2")
    assert said(plan) == ["vade-2epochs-seed0"]
    assert said(written("seeds: [3, 3]\nruns: [{model: vade}]\n")) == ["vade-seed3"]


def test_a_list_in_a_corpus_is_a_grid_of_corpora(written):
    plan = written(
        "corpora: {a: {clips_per_genre: 4, variation: [0, 0.5], fixed: [key, tempo]}}\nseeds: [0, 1]\n"
        "runs: [{model: vade}]\n"
    )
    assert [c.store.stem for c in plan.corpora] == [f"demo-4x6s-c0-v{v}-tempo+key-s0-compact" for v in ("0", "0.5")]
    assert plan.corpora[1].job.parameters == {
        "demo": "styles", "clips_per_genre": 4, "clip_seconds": 6.0, "composition": 0.0, "variation": 0.5,
        "fixed": "tempo+key", "seed": 0, "profile": "compact",
    }  # fmt: skip
    stores = [Path(job.parameters["store"]).stem for job in training_jobs(plan)]
    assert stores == [c.store.stem for c in plan.corpora] * 2  # the first seed of every corpus before the second
    assert len({job.title for job in training_jobs(plan)}) == 4


DESK = "corpora:\n  desk: {demo: desk, clips_per_genre: 60}\n  a: {seed: 1}\n  b: {fixed: [], windows: anywhere}\n"


def test_the_desk_goes_to_notebook_04_of_the_first_corpus(written):
    plan = written(DESK + "runs:\n  - model: [vade, beta_vae]\n    desk_epochs: 3\n".replace("vade, ", ""))
    assert [(c.name, c.store.stem) for c in plan.corpora] == [
        ("desk", "desk-60x6s-s0-compact"), ("a", "demo-40x6s-c0-v0.3-tempo-s1-compact"),
        ("b", "demo-40x6s-c0-v0.3-s0-anywhere-compact"),
    ]  # fmt: skip
    assert plan.desk == plan.corpora[0] and plan.music == plan.corpora[1:]
    assert plan.desk.job.parameters == {
        "demo": "desk", "clips_per_genre": 60, "clip_seconds": 6.0, "seed": 0, "profile": "compact",
    }  # fmt: skip
    first, second = (job.parameters for job in training_jobs(plan))
    assert (first["store"], first["desk"]) == (str(plan.corpora[1].store), str(plan.desk.store))
    assert (second["store"], second["desk"]) == (str(plan.corpora[2].store), "")
    assert first["desk_epochs"] == 3 and "desk_epochs" not in second


def test_a_run_names_its_corpora(written):
    plan = written(
        DESK + "runs:\n  - {model: vade, corpora: b}\n  - {model: basic_vae, corpora: [a, b]}\n"
        "  - {model: beta_vae, beta: 2, corpora: [b]}\n  - {model: beta_vae, beta: 4, corpora: [b, desk]}\n"
    )
    jobs = [(j.notebook[3:], Path(j.parameters["store"]).stem[-12:], j.parameters.get("desk")) for j in
            training_jobs(plan)]  # fmt: skip
    assert jobs == [
        ("basic_vae", "mpo-s1-compact"[-12:], None), ("beta_vae", "here-compact", ""),
        ("beta_vae", "here-compact", str(plan.desk.store)), ("basic_vae", "here-compact", None),
        ("vade", "here-compact", None),
    ]  # fmt: skip


def test_a_desk_that_was_made_before_is_one(written, tmp_path):
    made = tmp_path / "desk-60x6s-s0-compact.zarr"
    made.mkdir()
    (made / "zarr.json").write_text('{"attributes": {"rung": "desk"}}')
    plan = written(f"corpora: {{loops: {{}}, mine: {{store: {made}}}}}\nruns: [{{model: [vade, beta_vae]}}]\n")
    assert [job.parameters.get("desk") for job in training_jobs(plan)] == [str(made), None]


def test_own_music_and_a_store_that_is_there(written, tmp_path, store):
    plan = written(f"corpora: {{mine: {{folder: {tmp_path / 'songs'}, split_seed: 3}}}}\nruns: [{{model: vade}}]\n")
    given = plan.corpora[0].job.parameters
    assert given == {"corpus": str(tmp_path / "songs"), "split_seed": 3, "profile": "compact"}
    assert plan.corpora[0].store.name == "songs-compact.zarr" and not plan.corpora[0].desk
    with pytest.raises(InputError, match="no corpus at"):
        plan.corpora[0].is_current()
    plan = written(f"corpora: {{mine: {{store: {store.path}}}}}\nruns: [{{model: vade}}]\n")
    assert plan.corpora == (plans.Corpus("mine", store.path, None),) and plan.corpora[0].is_current()


def test_a_rendered_corpus_may_be_deleted_but_not_half_made(written, data):
    corpus = written("runs: [{model: vade}]\n").corpora[0]
    assert not corpus.is_current()
    corpus.store.mkdir(parents=True)
    assert corpus.is_current()
    (data / "corpora" / corpus.job.label).mkdir(parents=True)  # rendering was interrupted
    assert not corpus.is_current()


@pytest.mark.parametrize("path", sorted((ROOT / "plans").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_plans_of_the_house_are_good(path):
    plan = read_plan(path)
    assert len(training_jobs(plan)) == sum(len(run["corpora"]) for run in plan.runs) * len(plan.seeds) - len(
        [1 for run in plan.runs if plan.desk.name in run["corpora"]]
    ) * len(plan.seeds)
    assert {job.notebook for job in training_jobs(plan)} == set(MODEL_NOTEBOOKS.values())
    assert plan.saved() == path


# --- changes on the command line ---


def test_changes_reach_defaults_runs_seeds_and_corpora(written, monkeypatch, tmp_path):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    text = DESK + "seeds: [0, 1]\nruns:\n  - model: conv_vae\n  - {model: vade, epochs: 40}\n"
    changes = ["epochs=2", "seeds=4", "corpora.clips_per_genre=4", "a.variation=0,1", "b.fixed=key,voice", "lr=1e-2"]
    plan = written(text, *changes, "desk.clip_seconds=7", "pages=false")
    assert [run["epochs"] for run in plan.runs] == [2, 2] and plan.runs[0]["lr"] == 0.01
    assert plan.seeds == (4,) and not plan.pages and not any(job.page for job in training_jobs(plan))
    assert [c.store.stem.removesuffix("-compact") for c in plan.corpora] == [
        "desk-60x7s-s0", "demo-4x6s-c0-v0-tempo-s1", "demo-4x6s-c0-v1-tempo-s1",
        "demo-4x6s-c0-v0.3-key+voice-s0-anywhere",
    ]  # fmt: skip
    saved = read_plan(plan.saved())  # what notebook 07 is given says what is really run
    assert (saved.corpora, saved.seeds, saved.runs) == (plan.corpora, plan.seeds, plan.runs)
    assert plan.saved().parent == tmp_path / "papermill"
    assert written(text, "seeds=0,1").saved() == tmp_path / "plan.yaml"  # nothing is changed by that


def test_music_takes_the_place_of_the_rendered_corpus(written, tmp_path):
    text = "corpora: {a: {clips_per_genre: 4, seed: 1, windows: start}, desk: {demo: desk}}\nruns: [{model: vade}]\n"
    for place in ("a", "corpora"):
        plan = written(text, f"{place}.folder={tmp_path}/songs")
        assert [c.store.name for c in plan.music] == ["songs-start-compact.zarr"] and plan.desk


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("epochs", "'epochs' cannot be set: give name=value"),
        ("epochs=", "'epochs=' cannot be set"),
        ("=2", "'=2' cannot be set"),
        ("runs=2", "'runs=2' cannot be set"),
        ("corpora={a: 1}", "'corpora={a: 1}' cannot be set"),
        ("a={seed: 1}", "'a={seed: 1}' cannot be set"),
        ("model=vade", "'model=vade' cannot be set"),
        ("epochs=many", "epochs=many: parameter 'epochs' of notebook 06_vade is 'many'"),
        ("epocs=2", "epocs=2: unknown parameter of the notebooks of this plan 'epocs': did you mean 'epochs'"),
        ("seed=2", "seed=2: unknown parameter"),
        ("seeds=a", "seeds=a: parameter 'seed' of notebook"),
        ("pages=2", "pages=2: 'pages' must be true or false, not 2"),
        ("loops.clips=2", "loops.clips=2: unknown key of a corpus 'clips'"),
        ("loop.seed=2", "loop.seed=2: unknown corpus of this plan 'loop': did you mean 'loops'"),
        ("loops.clips_per_genre=2", "loops.clips_per_genre=2: 2 clips per genre cannot be split"),
        ("corpora.composition=2", "corpora.composition=2: composition must be from 0 to 1"),
        ("loops.fixed=temo", "loops.fixed=temo: unknown factor in fixed 'temo': did you mean 'tempo'"),
        ("profile=compct", "profile=compct: unknown profile 'compct': did you mean 'compact'"),
        ("profile=2", "profile=2: 'profile' must be a word, not 2"),
        ("epochs=[2", "'epochs=[2' cannot be set"),
    ],
)
def test_wrong_changes_are_named(written, change, says):
    with pytest.raises(InputError, match=f"^{re.escape(says)}"):
        written("runs: [{model: vade}]\n", change)


def test_no_rendered_corpus_to_change_and_a_desk_of_own_music(written):
    with pytest.raises(InputError, match=r"^corpora.seed=1: no corpus of this plan is rendered$"):
        written("corpora: {a: {folder: x}}\nruns: [{model: vade}]\n", "corpora.seed=1")
    with pytest.raises(InputError, match=r"^.*: a desk is rendered, it cannot be made of music of your own"):
        written(DESK + "runs: [{model: vade}]\n", "desk.folder=x")


# --- what is refused, and where ---

RUN = "runs: [{model: vade}]\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "a plan is a mapping"),
        ("- model: vade\n", 1, "a plan is a mapping"),
        ("seeds: [0]\n", 1, "a plan without runs"),
        ("seeds: [0]\nruns: []\n", 2, "a plan without runs"),
        ("runs:\n", 1, "'runs' must be a list, not None"),
        ("runs: vade\n", 1, "'runs' must be a list, not 'vade'"),
        ("runs:\n  - vade\n", 1, "a run is a mapping with a model.*not 'vade'"),
        ("runs:\n  - {epochs: 2}\n", 1, "a run is a mapping with a model"),
        ("runs:\n  - {model: vade}\n  - {model: vead}\n", 3, "unknown model 'vead': did you mean 'vade'"),
        ("runs:\n  - model: conv_vae\n    beta: 2\n", 3, "unknown parameter of notebook 03_conv_vae 'beta'"),
        ("runs:\n  - model: vade\n    epoch: 2\n", 3, "did you mean 'epochs'"),
        ("runs:\n  - {model: vade, seed: 2}\n", 2, "'seed' is no parameter of a run"),
        ("runs:\n  - {model: vade, store: x.zarr}\n", 2, "'store' is no parameter of a run"),
        ("runs:\n  - {model: vade, epochs: many}\n", 2, "must be of type int"),
        ("runs:\n  - {model: vade, epochs: }\n", 2, "'epochs' must be one value or a list of values, not None"),
        ("runs:\n  - {model: vade, epochs: [[2]]}\n", 2, "must be one value or a list of values"),
        ("runs:\n  - {model: vade, backbone: 2026-01-01}\n", 2, "must be one value or a list of values"),
        ("runs:\n  - {model: vade, epochs: []}\n", 2, "'epochs' is an empty list"),
        ("runs:\n  - {model: vade, epochs: .inf}\n", 2, "must be of type int"),
        ("runs:\n  - {model: vade,\n     epochs: 0}\n", 3, "epochs must be positive"),
        ("runs:\n  - {model: vade, backbone: cnv}\n", 2, "did you mean 'conv'"),
        ("runs:\n  - {model: cvae, condition: genra}\n", 2, "did you mean 'genre'"),
        ("runs:\n  - {model: cvae, priors: 'standard, fixed'}\n", 2, "unknown prior ' fixed'"),
        (RUN + "defaults: {epocs: 2}\n", 2, "did you mean 'epochs'"),
        (RUN + "defaults:\n  beta: 2\n", 3, "unknown parameter of the notebooks of this plan 'beta'"),
        (RUN + "defaults: [2]\n", 2, "'defaults' must be a mapping"),
        (RUN + "sedes: [2]\n", 2, "unknown key of a plan 'sedes': did you mean 'seeds'"),
        (RUN + "seeds: 2\n", 2, "'seeds' must be a list"),
        (RUN + "seeds: []\n", 2, "'seeds' is an empty list"),
        (RUN + "seeds: [0, -1]\n", 2, "seed must not be negative"),
        (RUN + "seeds: [0, 1.5]\n", 2, "must be of type int"),
        (RUN + "profile: 2\n", 2, "'profile' must be a word"),
        (RUN + "profile: ful\n", 2, "did you mean 'full'"),
        (RUN + "profile: full\ncorpora:\n  a:\n    clip_seconds: 10\n", 5, "shorter than the 30.0-s window"),
        (RUN + "profile: full\n", 1, "clips of 6 s are shorter"),
        (RUN + "pages: 2\n", 2, "'pages' must be true or false, not 2"),
        (RUN + "corpus: {variation: 1}\n", 2, "unknown key of a plan 'corpus': did you mean 'corpora'"),
        (RUN + "corpora: [a]\n", 2, "'corpora' must be a mapping"),
        (RUN + "corpora:\n  a: 40\n", 3, "corpus 'a' must be a mapping"),
        (RUN + "corpora: {}\n", 2, "'corpora' is empty: give at least one corpus"),
        (RUN + "corpora: {a: {variation: 2}}\n", 2, "variation must be from 0 to 1, not 2"),
        (RUN + "corpora:\n  a: {seed: 1,\n    composition: -0.1}\n", 4, "composition must be from 0 to 1, not -0.1"),
        (RUN + "corpora: {a: {fixed: [tempo, kee]}}\n", 2, "unknown factor in fixed 'kee': did you mean 'key'"),
        (RUN + "corpora: {a: {fixed: [[tempo]]}}\n", 2, "'fixed' must be names of factors"),
        (RUN + "corpora: {a: {windows: anywere}}\n", 2, "did you mean 'anywhere'"),
        (RUN + "corpora: {a: {demo: dsk}}\n", 2, "did you mean 'desk'"),
        (RUN + "corpora: {a: {variations: 1}}\n", 2, "did you mean 'variation'"),
        (RUN + "corpora: {a: {clips_per_genre: [4, 2]}}\n", 2, "2 clips per genre cannot be split"),
        (
            RUN + "corpora: {a: {}, d: {demo: desk, clips_per_genre: 9}}\n",
            2,
            "9 clips of a desk are too few; use at least 60",
        ),
        (RUN + "corpora: {a: {}, d: {demo: desk, fixed: key}}\n", 2, "'fixed' is no dial of a desk"),
        (RUN + "corpora: {a: {}, d: {demo: desk, seed: [0, 1]}}\n", 2, "a second desk: a plan can have one"),
        (
            RUN + "corpora:\n  a: {}\n  d:\n    folder: x\n    demo: desk\n",
            5,
            "a desk is rendered, it cannot be made of music",
        ),
        (RUN + "corpora: {d: {demo: desk}}\n", 1, "vade needs a corpus that is no desk"),
        (RUN + "corpora: {a: {seed: -1}}\n", 2, "seed must not be negative"),
        (RUN + "corpora:\n  a:\n    folder: x\n    variation: 1\n", 5, "'variation' says how a corpus is made"),
        (RUN + "corpora:\n  a:\n    store: x\n    folder: x\n", 5, "'folder' says how a corpus is made"),
        (RUN + "corpora:\n  a: {split_seed: [0, 1]}\n", 3, "two corpora would share the store demo-40x6s"),
        (RUN + "corpora:\n  a: {}\n  b: {seed: 0}\n", 4, "two corpora would share the store demo-40x6s"),
        ("runs:\n  - {model: vade, corpora: lops}\n", 2, "unknown corpus of this plan 'lops': did you mean 'loops'"),
        ("runs:\n  - {model: beta_vae, desk_starts: 'components,randm'}\n", 2, "did you mean 'random'"),
        ("runs:\n  - {model: beta_vae, desk_epochs: 0}\n", 2, "epochs must be positive"),
        ("runs:\n  - {model: vade, desk: x.zarr}\n", 2, "'desk' is no parameter of a run"),
        (
            "corpora: {a: {}, d: {demo: desk}}\nruns:\n  - model: vade\n    corpora: [a, d]\n",
            4,
            "vade is not trained on a desk",
        ),
        (
            "corpora: {a: {}, d: {demo: desk}}\nruns:\n  - model: beta_vae\n    corpora: d\n",
            4,
            "beta_vae needs a corpus that",
        ),
        (RUN + "seeds: [0\n", 3, "this is not YAML"),
        (RUN + "\tseeds: 0\n", 2, "this is not YAML"),
        (RUN + "seeds: [0]\nseeds: [1]\n", 3, "'seeds' stands there twice"),
        (RUN + "defaults: !!python/object:os.system {}\n", 2, "this is not YAML: could not determine a constructor"),
        (RUN + "defaults: &a {epochs: *a}\n", 2, "this is not YAML"),
    ],
)
def test_wrong_plans_are_refused_with_file_and_line(written, tmp_path, text, line, says):
    with pytest.raises(InputError, match=rf"^{tmp_path}/plan.yaml, line {line}: .*{says}") as refused:
        written(text)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_plan(tmp_path):
    with pytest.raises(InputError, match=r"no plan can be read at .*none.yaml: No such file"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no plan can be read at"):
        read_plan(tmp_path)
    (tmp_path / "sound.yaml").write_bytes(b"RIFF\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"sound.yaml, line 1: this is not YAML"):
        read_plan(tmp_path / "sound.yaml")


# --- the runs of a plan ---


@pytest.fixture(scope="module")
def desk(folders):
    """The store of a few other tones, which says that it is a desk."""
    made = build_store(write_tones(folders / "mixes", languages=("english",), genres=("house",), clips=15), TINY)
    about = json.loads((made / "zarr.json").read_text())
    about["attributes"]["rung"] = "desk"
    (made / "zarr.json").write_text(json.dumps(about))
    return open_store(made)


@pytest.fixture(scope="module")
def outputs(store, desk, tmp_path_factory):
    """Finished runs on the tones, one after the other, and on the desk."""
    root = tmp_path_factory.mktemp("outputs")
    trained = [
        ("conv_vae", {}), ("conv_vae", {"seed": 1}), ("conv_vae", {"lr": 2e-3}), ("conv_vae", {"detilt": True}),
        ("conv_vae", {"epochs": 2}), ("beta_vae", {"beta": 2.0}), ("beta_vae", {"beta": 8.0}),
        ("cvae", {"condition": "genre"}), ("cvae", {"condition": "genre", "prior": "fixed"}),
        ("cvae", {"condition": "language"}), ("vade", {"pretrain_epochs": 1}),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(root))
        for age, (model, changes) in enumerate(trained):
            config = runs.plan(store, model, model_settings=SMALL, **QUICK | {"epochs": 1} | changes)
            os.utime(runs.fit(config, store, show=False).folder / "done.json", (1e9 + age, 1e9 + age))
        for model, changes in (("beta_vae", {"beta": 2.0}), ("conv_vae", {})):
            start = {"sigma": 0.2, "start_components": 2}
            config = runs.plan(desk, model, model_settings=SMALL, **QUICK | {"epochs": 1} | start | changes)
            runs.fit(config, desk, show=False)
    return root


def found(plan, root) -> list[tuple]:
    """What tells the found runs apart."""
    configs = [runs.load_run(folder).config for folder in runs_of(plan, root)[0]]
    return [(c.variant, c.training.first_phase, c.training.seed, c.training.lr) for c in configs]


def test_every_run_is_found_and_no_other(written, store, outputs):
    plan = written(
        f"corpora: {{mine: {{store: {store.path}}}}}\ndefaults: {{epochs: 1, batch_size: 10}}\nruns:\n"
        "  - {model: conv_vae, lr: [1e-3, 2e-3]}\n  - {model: conv_vae, epochs: 2}\n"
        "  - {model: conv_vae, detilt: true}\n  - {model: beta_vae, beta: [2, 8]}\n"
        "  - {model: cvae, condition: genre, priors: 'standard,fixed'}\n  - {model: vade, components: 4}\n"
    )
    assert runs_of(plan, outputs)[1] == []
    assert found(plan, outputs) == [
        ("beta_vae-b2", 1, 0, 1e-3), ("beta_vae-b8", 1, 0, 1e-3),
        ("conv_vae", 1, 0, 1e-3), ("conv_vae", 1, 0, 2e-3), ("conv_vae", 2, 0, 1e-3), ("conv_vae-detilt", 1, 0, 1e-3),
        ("vade", 1, 0, 1e-3), ("cvae-genre-standard", 1, 0, 1e-3), ("cvae-genre-fixed", 1, 0, 1e-3),
    ]  # fmt: skip


def test_the_runs_of_the_desk_belong_to_the_plan(written, store, desk, outputs):
    plan = written(
        f"corpora: {{mine: {{store: {store.path}}}, desk: {{store: {desk.path}}}}}\n"
        "defaults: {epochs: 1, batch_size: 10}\n"
        "runs: [{model: beta_vae, beta: 2, sigma: 0, desk_epochs: 1, desk_lr: 0.001, desk_components: 2, "
        "desk_starts: 'components,random'}]\n"
    )
    assert [variant for variant, *_ in found(plan, outputs)] == [
        "beta_vae-b2", "beta_vae-b2-sigma0.2-components", "conv_vae-sigma0.2-components",
    ]  # fmt: skip
    assert runs_of(plan, outputs)[1] == [
        f"{model}, beta {beta}, 1 epochs, seed 0, from a random start, on mixes-tiny: no finished run"
        for model, beta in (("beta_vae", 2), ("conv_vae", 1))
    ]
    without = written(
        f"corpora: {{mine: {{store: {store.path}}}, desk: {{demo: desk, clips_per_genre: 61}}}}\n"
        "runs: [{model: beta_vae, beta: 2, epochs: 1}]\n"
    )
    folders, missing = runs_of(without, outputs)
    assert len(folders) == 1 and missing == ["desk-61x6s-s0-compact.zarr: no such mel store, so none of its runs"]


def test_what_is_missing_is_said(written, store, outputs, tmp_path):
    plan = written(
        f"corpora: {{mine: {{store: {store.path}}}}}\nseeds: [0, 2]\ndefaults: {{epochs: 1}}\nruns:\n"
        "  - {model: conv_vae, detilt: true}\n  - {model: beta_vae, beta: 4}\n  - {model: vade, components: 5}\n"
        "  - {model: cvae, condition: language, priors: 'standard,fixed'}\n",
    )
    assert runs_of(plan, outputs)[1] == [
        "beta_vae, 1 epochs, beta 4, seed 0: no finished run",
        "vade, 1 epochs, components 5, seed 0: no finished run",
        "cvae, language, 1 epochs, seed 0, prior fixed: no finished run",
        "beta_vae, 1 epochs, beta 4, seed 2: no finished run",
        "conv_vae, 1 epochs, detilt, seed 2: no finished run",
        "vade, 1 epochs, components 5, seed 2: no finished run",
        "cvae, language, 1 epochs, seed 2, prior standard: no finished run",
        "cvae, language, 1 epochs, seed 2, prior fixed: no finished run",
    ]
    assert len(runs_of(plan, outputs)[0]) == 2 and runs_of(plan, tmp_path)[0] == []


def test_the_newest_of_several_matches(written, store, outputs):
    plan = written(
        f"corpora: {{mine: {{store: {store.path}}}}}\ndefaults: {{epochs: 1}}\nruns: [{{model: conv_vae}}]\n"
    )
    assert found(plan, outputs) == [("conv_vae", 1, 0, 2e-3)]


def test_a_missing_store_is_a_sentence(written, store, outputs):
    plan = written(
        f"corpora: {{mine: {{store: [{store.path}, /none/a.zarr]}}}}\ndefaults: {{epochs: 1}}\n"
        "runs: [{model: vade}]\n"
    )
    folders, missing = runs_of(plan, outputs)
    assert len(folders) == 1 and missing == ["a.zarr: no such mel store, so none of its runs"]


def test_a_training_is_done_only_with_its_own_run(store, outputs, monkeypatch):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(outputs))

    def left(notebook: str, **given) -> bool:
        return Job(notebook, {"store": str(store.path), "seed": 0, "epochs": 1} | given).left_its_run()

    assert left("03_conv_vae") and left("03_conv_vae", detilt=True) and not left("03_conv_vae", epochs=3)
    assert left("04_beta_vae", beta=8, desk="") and left("04_beta_vae", beta="2", desk="")
    assert not left("04_beta_vae", desk="")  # β is 4 there
    both = {"priors": "standard,fixed"}
    assert left("05_conditional_vae", condition="genre", **both)
    assert not left("05_conditional_vae", condition="language", **both)
    assert left("05_conditional_vae", condition="language", priors="standard")


# --- execution ---


@pytest.fixture
def stage(written, store, monkeypatch, tmp_path, in_process):
    """Executes a plan on the tones without notebooks; what is asked for is noted, some titles fail."""
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    asked, jobs, failing = [], [], {}

    def attempt(job, tell=None, again=False):
        asked.append((job.title, again))
        jobs.append(job)
        state = next((state for word, state in failing.items() if word in job.title), "done")
        return Outcome(job, state, 2.0, Path(f"{job.title}.ipynb"), f"{job.title}: oh" if state != "done" else "")

    monkeypatch.setattr(engine, "attempt", attempt)
    monkeypatch.setattr(plans, "runs_of", lambda plan, root: (["a run"], []))

    def execute(text: str, **fails: str) -> list[tuple[str, bool]]:
        failing.update(fails)
        asked.clear()
        plans.execute_plan(written(text))
        return asked

    execute.asked, execute.jobs, execute.monkeypatch = asked, jobs, monkeypatch
    return execute


def test_corpora_then_trainings_then_one_comparison(stage, store, tmp_path, data, capsys):
    asked = stage("corpora: {a: {clips_per_genre: 4, variation: [0, 1]}}\nruns: [{model: vade}, {model: basic_vae}]\n")
    zero, one = (f"demo-4x6s-c0-v{v}-tempo-s0" for v in (0, 1))
    assert asked == [
        (f"01_preprocess-{zero}", True), (f"01_preprocess-{one}", True),
        (f"02_basic_vae-{zero}-compact-seed0", False), (f"06_vade-{zero}-compact-seed0", False),
        (f"02_basic_vae-{one}-compact-seed0", False), (f"06_vade-{one}-compact-seed0", False),
        ("07_compare", True),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "papermill" / "summary.csv").open()))
    assert [row["run"] for row in rows] == [title for title, _ in asked]
    assert rows[0] == {"run": asked[0][0], "state": "done", "seconds": "2.0", "notebook": f"{asked[0][0]}.ipynb",
                       "reason": ""}  # fmt: skip
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(asked) + 1 and "7/7 notebooks: 07_compare" in printed.err
    assert re.match(r"7 notebooks, \d at a time: this takes about \d+ min\n", printed.err)


def test_notebook_04_waits_for_the_corpus_and_for_the_desk(written, data):
    tasks = plans._tasks(written(DESK + "runs: [{model: [beta_vae, basic_vae, conv_vae]}]\n"))
    needs = {f"{t.job.notebook} {t.job.label}": (t.needs, t.after) for t in tasks[3:]}
    first, second = (f"demo-40x6s-c0-v0.3-{dials}-compact" for dials in ("tempo-s1", "s0-anywhere"))
    assert needs == {
        f"04_beta_vae {first}": ((1, 0), ()), f"04_beta_vae {second}": ((2,), ()),
        f"02_basic_vae {first}": ((1,), ()), f"03_conv_vae {first}": ((1,), (4,)),
        f"02_basic_vae {second}": ((2,), ()), f"03_conv_vae {second}": ((2,), (7,)),
    }  # fmt: skip
    with_desk, without = tasks[3].seconds, tasks[6].seconds
    assert with_desk > without > tasks[4].seconds > 0


def test_one_corpus_with_two_kinds_of_windows_is_rendered_by_one_at_a_time(written, data):
    tasks = plans._tasks(written("corpora: {a: {windows: [start, anywhere]}}\nruns: [{model: vade}]\n"))
    assert [t.after for t in tasks[:2]] == [(), (0,)]


def test_the_comparison_is_told_plan_and_corpus(stage, store, tmp_path):
    one = stage(f"corpora: {{mine: {{store: [{store.path}, {store.path}/]}}}}\nruns: [{{model: vade}}]\n")  # said twice
    told = stage.jobs[-1].parameters
    assert told["corpus"] == store.path.stem and told["target"].endswith("/comparison") and len(one) == 2
    stage("corpora: {d: {demo: desk}, a: {clips_per_genre: [4, 5]}}\nruns: [{model: vade}]\npages: false\n")
    told = stage.jobs[-1].parameters
    assert told["corpus"] == "demo-4x6s-c0-v0.3-tempo-s0-compact" and told["target"].endswith("/comparison-plan")
    assert (told["plan"], told["epochs"]) == (str(tmp_path / "plan.yaml"), 0)
    assert stage.jobs[-1].page and not any(job.page for job in stage.jobs[-6:-1])


def test_one_failure_leaves_the_others_running(stage, store):
    with pytest.raises(NotebookFailedError, match=r"^06_vade-seed0: oh$"):
        stage(
            f"corpora: {{mine: {{store: {store.path}}}}}\nruns: [{{model: vade}}, {{model: beta_vae}}]\n", vade="failed"
        )
    assert [title for title, _ in stage.asked] == ["04_beta_vae-seed0", "06_vade-seed0", "07_compare"]


def test_trainings_without_their_corpus_are_left_out(stage, data, capsys):
    with pytest.raises(InputError, match=r"^01_preprocess-demo-4x6s-c0-v0-tempo-s0: oh$"):
        stage("corpora: {a: {clips_per_genre: 4, variation: [0, 1]}}\nruns: [{model: vade}]\n", v0="refused")
    assert [title[:30] for title, _ in stage.asked][2:] == ["06_vade-demo-4x6s-c0-v1-tempo-", "07_compare"]
    assert "left out" in capsys.readouterr().out


def test_nothing_to_compare(stage, store, capsys):
    stage.monkeypatch.setattr(plans, "runs_of", lambda plan, root: ([], ["all"]))
    with pytest.raises(NotebookFailedError):
        stage(f"corpora: {{mine: {{store: {store.path}}}}}\nruns: [{{model: vade}}]\n", vade="failed")
    assert [title for title, _ in stage.asked] == ["06_vade-seed0"]
    assert "the plan has no finished run" in capsys.readouterr().out


def test_a_label_with_one_class_is_left_out_and_no_failure(stage, store, capsys):
    stage.monkeypatch.setattr(plans, "too_few_classes", lambda store, label: "too few" * (label == "genre"))
    asked = stage(
        f"corpora: {{mine: {{store: {store.path}}}}}\nruns: [{{model: cvae, condition: [genre, language]}}]\n"
    )
    assert [title for title, _ in asked] == ["05_conditional_vae-language-seed0", "07_compare"]
    assert "left out" in capsys.readouterr().out


def test_a_missing_folder_is_refused_before_anything_runs(stage, tmp_path):
    with pytest.raises(InputError, match="no corpus at"):
        stage(f"corpora: {{mine: {{folder: {tmp_path}/none}}}}\nruns: [{{model: vade}}]\n")
    with pytest.raises(InputError, match="no mel store at"):
        stage(f"corpora: {{mine: {{store: {tmp_path}/none.zarr}}}}\nruns: [{{model: vade}}]\n")
    assert stage.asked == [] and not (tmp_path / "papermill").exists()


def test_a_changed_plan_is_still_yaml_of_plain_words(written):
    plan = written("runs:\n  - {model: vade, epochs: 40}\n", "epochs=2")
    assert yaml.safe_load(plan.text)["runs"] == [{"model": "vade", "epochs": 2}]
