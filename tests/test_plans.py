"""Plans: what a file expands to and in which order, what is refused and where, which runs belong to it."""

import csv
import os
from pathlib import Path

import pytest
import yaml

from vaelib import engine, plans, runs
from vaelib.config import ROOT, InputError
from vaelib.jobs import Job, NotebookFailedError, Outcome
from vaelib.plans import read_plan, runs_of, training_jobs

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
        "conditional_vae-language-fixed-5epochs-seed0", "conditional_vae-genre-fixed-5epochs-seed0",
        "beta_vae-3epochs-beta2-seed0", "beta_vae-3epochs-beta8.5-seed0",
    ]  # fmt: skip
    assert said(plan) == first + [title.replace("seed0", "seed1") for title in first]
    job = training_jobs(plan)[2]
    assert job.parameters == {"store": str(plan.corpora[0].store), "epochs": 3, "beta": 2.0, "seed": 0}
    assert isinstance(job.parameters["beta"], float)  # as the notebook's default, so that both spellings are one job
    assert plan.corpora[0].store.name == "demo-40x10s-v1-s0-compact.zarr" and plan.seeds == (0, 1)


def test_runs_that_others_are_compared_with_come_first(written):
    plan = written(
        "seeds: [1, 0]\nruns:\n  - model: beta_vae\n  - {model: vade, epochs: 9}\n  - {model: conv_vae, epochs: 9}\n"
        "  - model: [conv_vae, cvae]\n  - model: basic_vae\n"
    )
    order = ["basic_vae", "conv_vae-9epochs", "conv_vae", "conditional_vae-language", "vade-9epochs", "beta_vae"]
    assert said(plan) == [f"{name}-seed{seed}" for seed in (1, 0) for name in order]


def test_the_same_run_twice_is_one(written):
    plan = written("runs:\n  - model: vade\n  - {model: vade, epochs: 40}\n", "epochs=2")
    assert said(plan) == ["vade-2epochs-seed0"]
    assert said(written("seeds: [3, 3]\nruns: [{model: vade}]\n")) == ["vade-seed3"]


def test_a_list_in_corpus_is_a_grid_of_corpora(written):
    plan = written("corpus: {clips_per_genre: 4, variation: [0, 0.5]}\nseeds: [0, 1]\nruns: [{model: vade}]\n")
    assert [c.store.stem for c in plan.corpora] == ["demo-4x10s-v0-s0-compact", "demo-4x10s-v0.5-s0-compact"]
    assert plan.corpora[1].job.parameters == {
        "clips_per_genre": 4, "clip_seconds": 10.0, "variation": 0.5, "seed": 0, "profile": "compact",
    }  # fmt: skip
    stores = [Path(job.parameters["store"]).stem for job in training_jobs(plan)]
    assert stores == [c.store.stem for c in plan.corpora] * 2  # the first seed of every corpus before the second
    assert len({job.title for job in training_jobs(plan)}) == 4


def test_own_music_and_a_store_that_is_there(written, tmp_path, store):
    plan = written(f"corpus: {{folder: {tmp_path / 'songs'}, split_seed: 3}}\nruns: [{{model: vade}}]\n")
    given = plan.corpora[0].job.parameters
    assert given == {"corpus": str(tmp_path / "songs"), "split_seed": 3, "profile": "compact"}
    assert plan.corpora[0].store.name == "songs-compact.zarr"
    with pytest.raises(InputError, match="no corpus at"):
        plan.corpora[0].is_current()
    plan = written(f"corpus: {{store: {store.path}}}\nruns: [{{model: vade}}]\n")
    assert plan.corpora == (plans.Corpus(store.path, None),) and plan.corpora[0].is_current()


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
    assert len(training_jobs(plan)) == len(plan.corpora) * len(plan.seeds) * len(plan.runs) >= 6
    assert plan.saved() == path


# --- changes on the command line ---


def test_changes_reach_defaults_runs_seeds_and_corpus(written, monkeypatch, tmp_path):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    text = "seeds: [0, 1]\nruns:\n  - model: conv_vae\n  - {model: vade, epochs: 40}\n"
    plan = written(text, "epochs=2", "seeds=4", "corpus.clips_per_genre=4", "corpus.variation=0,1", "lr=1e-2")
    assert [run["epochs"] for run in plan.runs] == [2, 2] and plan.runs[0]["lr"] == 0.01
    assert plan.seeds == (4,) and [c.store.stem[:9] for c in plan.corpora] == ["demo-4x10", "demo-4x10"]
    saved = read_plan(plan.saved())  # what notebook 07 is given says what is really run
    assert (saved.corpora, saved.seeds, saved.runs) == (plan.corpora, plan.seeds, plan.runs)
    assert plan.saved().parent == tmp_path / "papermill"
    assert written(text, "seeds=0,1").saved() == tmp_path / "plan.yaml"  # nothing is changed by that


def test_music_takes_the_place_of_the_rendered_corpus(written, tmp_path):
    text = "corpus: {clips_per_genre: 4, seed: 1}\nruns: [{model: vade}]\n"
    assert written(text, f"corpus.folder={tmp_path}/songs").corpora[0].store.name == "songs-compact.zarr"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("epochs", "'epochs' cannot be set: give name=value"),
        ("epochs=", "'epochs=' cannot be set"),
        ("=2", "'=2' cannot be set"),
        ("runs=2", "'runs=2' cannot be set"),
        ("model=vade", "'model=vade' cannot be set"),
        ("epochs=many", "epochs=many: parameter 'epochs' of notebook 06_vade is 'many'"),
        ("epocs=2", "epocs=2: unknown parameter of the notebooks of this plan 'epocs': did you mean 'epochs'"),
        ("seed=2", "seed=2: unknown parameter"),
        ("seeds=a", "seeds=a: parameter 'seed' of notebook"),
        ("corpus.clips=2", "corpus.clips=2: unknown key of corpus 'clips'"),
        ("corpus.clips_per_genre=2", "corpus.clips_per_genre=2: 2 clips per genre cannot be split"),
        ("profile=compct", "profile=compct: unknown profile 'compct': did you mean 'compact'"),
        ("epochs=[2", "'epochs=\\[2' cannot be set"),
    ],
)
def test_wrong_changes_are_named(written, change, says):
    with pytest.raises(InputError, match=f"^{says}"):
        written("runs: [{model: vade}]\n", change)


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
        (RUN + "profile: full\ncorpus:\n  clip_seconds: 10\n", 4, "shorter than the 30.0-s window"),
        (RUN + "profile: full\n", 1, "clips of 10 s are shorter"),
        (RUN + "corpus: {variation: 2}\n", 2, "variation must be from 0 to 1"),
        (RUN + "corpus: {variations: 1}\n", 2, "did you mean 'variation'"),
        (RUN + "corpus: {clips_per_genre: [4, 2]}\n", 2, "2 clips per genre cannot be split"),
        (RUN + "corpus: {seed: -1}\n", 2, "seed must not be negative"),
        (RUN + "corpus:\n  folder: x\n  variation: 1\n", 4, "'variation' says how a corpus is made"),
        (RUN + "corpus:\n  store: x\n  folder: x\n", 4, "'folder' says how a corpus is made"),
        (RUN + "corpus:\n  split_seed: [0, 1]\n", 3, "two corpora would share the store demo-40x10s"),
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
def outputs(store, tmp_path_factory):
    """Finished runs on the tones, one after the other."""
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
    return root


def found(plan, root) -> list[tuple]:
    """What tells the found runs apart."""
    configs = [runs.load_run(folder).config for folder in runs_of(plan, root)[0]]
    return [(c.variant, c.training.first_phase, c.training.seed, c.training.lr) for c in configs]


def test_every_run_is_found_and_no_other(written, store, outputs):
    plan = written(
        f"corpus: {{store: {store.path}}}\ndefaults: {{epochs: 1, batch_size: 10}}\nruns:\n"
        "  - {model: conv_vae, lr: [1e-3, 2e-3]}\n  - {model: conv_vae, epochs: 2}\n"
        "  - {model: conv_vae, detilt: true}\n  - {model: beta_vae, beta: [2, 8]}\n"
        "  - {model: cvae, condition: genre}\n  - {model: vade, components: 4}\n"
    )
    assert runs_of(plan, outputs)[1] == []
    assert found(plan, outputs) == [
        ("conv_vae", 1, 0, 1e-3), ("conv_vae", 1, 0, 2e-3), ("conv_vae", 2, 0, 1e-3), ("conv_vae-detilt", 1, 0, 1e-3),
        ("cvae-genre-standard", 1, 0, 1e-3), ("cvae-genre-fixed", 1, 0, 1e-3), ("vade", 1, 0, 1e-3),
        ("beta_vae-b2", 1, 0, 1e-3), ("beta_vae-b8", 1, 0, 1e-3),
    ]  # fmt: skip


def test_what_is_missing_is_said(written, store, outputs, tmp_path):
    plan = written(
        f"corpus: {{store: {store.path}}}\nseeds: [0, 2]\ndefaults: {{epochs: 1}}\nruns:\n"
        "  - {model: conv_vae, detilt: true}\n  - {model: beta_vae, beta: 4}\n  - {model: vade, components: 5}\n"
        "  - {model: cvae, condition: language}\n",
    )
    assert runs_of(plan, outputs)[1] == [
        "cvae, language, 1 epochs, seed 0, prior fixed: no finished run",
        "vade, 1 epochs, components 5, seed 0: no finished run",
        "beta_vae, 1 epochs, beta 4, seed 0: no finished run",
        "conv_vae, 1 epochs, detilt, seed 2: no finished run",
        "cvae, language, 1 epochs, seed 2, prior standard: no finished run",
        "cvae, language, 1 epochs, seed 2, prior fixed: no finished run",
        "vade, 1 epochs, components 5, seed 2: no finished run",
        "beta_vae, 1 epochs, beta 4, seed 2: no finished run",
    ]
    assert len(runs_of(plan, outputs)[0]) == 2 and runs_of(plan, tmp_path)[0] == []


def test_the_newest_of_several_matches(written, store, outputs):
    plan = written(f"corpus: {{store: {store.path}}}\ndefaults: {{epochs: 1}}\nruns: [{{model: conv_vae}}]\n")
    assert found(plan, outputs) == [("conv_vae", 1, 0, 2e-3)]


def test_a_missing_store_is_a_sentence(written, store, outputs):
    plan = written(
        f"corpus: {{store: [{store.path}, /none/a.zarr]}}\ndefaults: {{epochs: 1}}\nruns: [{{model: vade}}]\n"
    )
    folders, missing = runs_of(plan, outputs)
    assert len(folders) == 1 and missing == ["a.zarr: no such mel store, so none of its runs"]


def test_a_training_is_done_only_with_its_own_run(store, outputs, monkeypatch):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(outputs))

    def left(notebook: str, **given) -> bool:
        return Job(notebook, {"store": str(store.path), "seed": 0, "epochs": 1} | given).left_its_run()

    assert left("03_conv_vae") and left("03_conv_vae", detilt=True) and not left("03_conv_vae", epochs=3)
    assert left("04_beta_vae", beta=8) and left("04_beta_vae", beta="2") and not left("04_beta_vae")  # β is 4 there
    assert left("05_conditional_vae", condition="genre") and not left("05_conditional_vae", condition="language")
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
    asked = stage("corpus: {clips_per_genre: 4, variation: [0, 1]}\nruns: [{model: vade}, {model: basic_vae}]\n")
    assert asked == [
        ("01_preprocess-demo-4x10s-v0-s0", True), ("01_preprocess-demo-4x10s-v1-s0", True),
        ("02_basic_vae-demo-4x10s-v0-s0-compact-seed0", False), ("06_vade-demo-4x10s-v0-s0-compact-seed0", False),
        ("02_basic_vae-demo-4x10s-v1-s0-compact-seed0", False), ("06_vade-demo-4x10s-v1-s0-compact-seed0", False),
        ("07_compare", True),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "papermill" / "summary.csv").open()))
    assert [row["run"] for row in rows] == [title for title, _ in asked]
    assert rows[0] == {"run": asked[0][0], "state": "done", "seconds": "2.0", "notebook": f"{asked[0][0]}.ipynb",
                       "reason": ""}  # fmt: skip
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(asked) + 1 and "7/7 notebooks: 07_compare" in printed.err


def test_the_comparison_is_told_plan_and_corpus(stage, store, tmp_path):
    one = stage(f"corpus: {{store: [{store.path}, {store.path}/]}}\nruns: [{{model: vade}}]\n")  # one store, said twice
    assert stage.jobs[-1].parameters["corpus"] == store.path.stem and len(one) == 2
    stage("corpus: {clips_per_genre: [4, 5]}\nruns: [{model: vade}]\n")
    told = stage.jobs[-1].parameters
    assert (told["corpus"], told["plan"], told["epochs"]) == ("", str(tmp_path / "plan.yaml"), 0)


def test_one_failure_leaves_the_others_running(stage, store):
    with pytest.raises(NotebookFailedError, match=r"^06_vade-seed0: oh$"):
        stage(f"corpus: {{store: {store.path}}}\nruns: [{{model: vade}}, {{model: beta_vae}}]\n", vade="failed")
    assert [title for title, _ in stage.asked] == ["06_vade-seed0", "04_beta_vae-seed0", "07_compare"]


def test_trainings_without_their_corpus_are_left_out(stage, data, capsys):
    with pytest.raises(InputError, match=r"^01_preprocess-demo-4x10s-v0-s0: oh$"):
        stage("corpus: {clips_per_genre: 4, variation: [0, 1]}\nruns: [{model: vade}]\n", v0="refused")
    assert [title[:30] for title, _ in stage.asked][2:] == ["06_vade-demo-4x10s-v1-s0-compa", "07_compare"]
    assert "left out" in capsys.readouterr().out


def test_nothing_to_compare(stage, store, capsys):
    stage.monkeypatch.setattr(plans, "runs_of", lambda plan, root: ([], ["all"]))
    with pytest.raises(NotebookFailedError):
        stage(f"corpus: {{store: {store.path}}}\nruns: [{{model: vade}}]\n", vade="failed")
    assert [title for title, _ in stage.asked] == ["06_vade-seed0"]
    assert "the plan has no finished run" in capsys.readouterr().out


def test_a_label_with_one_class_is_left_out_and_no_failure(stage, store, capsys):
    stage.monkeypatch.setattr(plans, "too_few_classes", lambda store, label: "too few" * (label == "genre"))
    asked = stage(f"corpus: {{store: {store.path}}}\nruns: [{{model: cvae, condition: [genre, language]}}]\n")
    assert [title for title, _ in asked] == ["05_conditional_vae-language-seed0", "07_compare"]
    assert "left out" in capsys.readouterr().out


def test_a_missing_folder_is_refused_before_anything_runs(stage, tmp_path):
    with pytest.raises(InputError, match="no corpus at"):
        stage(f"corpus: {{folder: {tmp_path}/none}}\nruns: [{{model: vade}}]\n")
    with pytest.raises(InputError, match="no mel store at"):
        stage(f"corpus: {{store: {tmp_path}/none.zarr}}\nruns: [{{model: vade}}]\n")
    assert stage.asked == [] and not (tmp_path / "papermill").exists()


def test_a_changed_plan_is_still_yaml_of_plain_words(written):
    plan = written("runs:\n  - {model: vade, epochs: 40}\n", "epochs=2")
    assert yaml.safe_load(plan.text)["runs"] == [{"model": "vade", "epochs": 2}]
