"""Plans: what a file expands to and in which order, what is refused, which runs belong to it."""

import dataclasses
from pathlib import Path

import pytest

from vaelib import batch, plans
from vaelib.batch import NotebookFailedError, Outcome, execute_plan
from vaelib.config import ROOT, InputError
from vaelib.plans import MODEL_NOTEBOOKS, make_plan, read_plan, runs_of

RUN = "runs: [{model: vade}]\n"
DESK = "corpora:\n  desk: {demo: desk, clips_per_genre: 60}\n  a: {seed: 1}\n  b: {fixed: [], windows: anywhere}\n"


@pytest.fixture
def written(tmp_path):
    """Writes a plan and reads it."""

    def read(text: str, *changes: str) -> plans.Plan:
        (tmp_path / "plan.yaml").write_text(text)
        return read_plan(tmp_path / "plan.yaml", changes)

    return read


def trainings(plan):
    return [job for job in plan.jobs if job.notebook != "01_preprocess"]


def titles(plan):
    """Of the trainings, without the number of the notebook."""
    return [job.title.partition("_")[2] for job in trainings(plan)]


def test_grids_seeds_and_defaults(written):
    plan = written(
        "seeds: [0, 1]\n"
        "defaults: {epochs: 3, priors: fixed}\n"
        "runs:\n  - {model: beta_vae, beta: [2, 8.5]}\n  - {model: cvae, condition: [language, genre], epochs: 5}\n"
    )
    first = [
        "beta_vae-epochs3-beta2-seed0", "beta_vae-epochs3-beta8.5-seed0",
        "conditional_vae-language-epochs5-seed0", "conditional_vae-genre-epochs5-seed0",
    ]  # fmt: skip
    assert titles(plan) == first + [title.replace("seed0", "seed1") for title in first]
    job = trainings(plan)[0]
    assert job.parameters == {"store": str(plan.corpora[0].store), "desk": "", "epochs": 3, "beta": 2.0, "seed": 0}
    assert isinstance(job.parameters["beta"], float)  # as the notebook's default: both spellings are one job
    assert plan.corpora[0].store.name == "demo-40x6s-c0-v0.3-tempo-s0-compact.zarr"


def test_the_longest_comes_first_then_whoever_others_wait_for_and_none_twice(written):
    plan = written(
        "seeds: [1, 0]\nruns:\n  - model: cvae\n  - {model: vade, epochs: 9}\n  - {model: conv_vae, epochs: 9}\n"
        "  - model: [conv_vae, beta_vae]\n  - model: basic_vae\n  - {model: vade, epochs: [9, 9]}\n"
    )
    order = ["beta_vae", "basic_vae", "conv_vae-epochs9", "conv_vae", "vade-epochs9", "conditional_vae-language"]
    assert titles(plan) == [f"{name}-seed{seed}" for seed in (1, 0) for name in order]


def test_a_list_in_a_corpus_is_a_grid_of_corpora(written):
    plan = written(
        "corpora: {a: {clips_per_genre: 4, variation: [0, 0.5], fixed: [key, tempo]}}\nseeds: [0, 1]\n" + RUN
    )
    assert [c.store.stem for c in plan.corpora] == [f"demo-4x6s-c0-v{v}-tempo+key-s0-compact" for v in ("0", "0.5")]
    given = {"clips_per_genre": 4, "variation": 0.5, "fixed": "key+tempo", "profile": "compact"}
    assert plan.corpora[1].job.parameters == given
    stores = [Path(job.parameters["store"]).stem for job in trainings(plan)]
    assert stores == [c.store.stem for c in plan.corpora] * 2  # the first seed of every corpus before the second


def test_the_desk_goes_to_notebook_04_of_the_first_corpus(written):
    plan = written(DESK + "runs:\n  - {model: beta_vae, desk_epochs: 3}\n  - {model: vade, corpora: b}\n")
    desk = plan.corpora[0]
    assert desk.is_desk and plan.music == plan.corpora[1:]
    assert desk.job.parameters["demo"] == "desk" and "variation" not in desk.job.parameters
    first, second, vade = (job.parameters for job in trainings(plan))
    assert (first["store"], first["desk"]) == (str(plan.corpora[1].store), str(desk.store))
    assert (second["store"], second["desk"]) == (str(plan.corpora[2].store), "")
    assert first["desk_epochs"] == 3 and "desk_epochs" not in second
    assert Path(vade["store"]).stem == "demo-40x6s-c0-v0.3-s0-anywhere-compact" and "desk" not in vade


def test_own_music_and_a_store_that_is_there(written, tmp_path, store):
    plan = written(f"corpora: {{mine: {{folder: {tmp_path / 'songs'}, split_seed: 3}}}}\n" + RUN)
    given = plan.corpora[0].job.parameters
    assert given == {"corpus": str(tmp_path / "songs"), "split_seed": 3, "profile": "compact"}
    assert plan.corpora[0].store.name == "songs-compact.zarr" and not plan.corpora[0].is_desk
    with pytest.raises(InputError, match="no corpus at"):
        plan.corpora[0].is_current()
    plan = written(f"corpora: {{mine: {{store: {store.path}}}}}\n" + RUN)
    assert plan.corpora == [plans.Corpus("mine", store.path, None, False)] and plan.corpora[0].is_current()


def test_a_rendered_corpus_may_be_deleted_but_not_half_made(written, data):
    corpus = written(RUN).corpora[0]
    assert not corpus.is_current()
    corpus.store.mkdir(parents=True)
    assert corpus.is_current()
    (data / "corpora" / corpus.job.label).mkdir(parents=True)  # rendering was interrupted
    assert not corpus.is_current()


def test_the_plans_of_the_repository_are_good():
    for path in (ROOT / "plans").glob("*.yaml"):
        assert {job.notebook for job in trainings(read_plan(path))} == set(MODEL_NOTEBOOKS.values())


def test_changes_reach_defaults_runs_seeds_and_corpora(written, monkeypatch, tmp_path):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    text = DESK + "seeds: [0, 1]\nruns:\n  - model: conv_vae\n  - {model: vade, epochs: 40}\n"
    changes = ["epochs=2", "seeds=4", "b.clips_per_genre=4", "a.variation=0,1", "lr=1e-2", "pages=false"]
    plan = written(text, *changes)
    given = [job.parameters for job in trainings(plan)]
    assert {(g["epochs"], g["lr"], g["seed"]) for g in given} == {(2, 0.01, 4)} and len(given) == 6
    assert not any(job.page for job in plan.jobs)
    assert [c.store.stem.removesuffix("-compact") for c in plan.corpora] == [
        "desk-60x6s-s0", "demo-40x6s-c0-v0-tempo-s1", "demo-40x6s-c0-v1-tempo-s1", "demo-4x6s-c0-v0.3-s0-anywhere",
    ]  # fmt: skip
    saved = read_plan(plan.saved())  # what notebook 07 is given says what is really run
    assert (saved.corpora, saved.jobs) == (plan.corpora, plan.jobs)
    assert plan.saved().parent == tmp_path / "papermill"
    own = written(text, f"a.folder={tmp_path}/songs")
    assert own.music[0].store.name == "songs-compact.zarr"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "plan.yaml: Input should be a valid dictionary"),
        ("runs:\n  - {model: vade}\n  - {model: vead}\n", r"model in runs\.1 'vead': did you mean 'vade'"),
        ("runs:\n  - {model: conv_vae, beta: 2}\n", r"parameter of 03_conv_vae in runs\.0 'beta'"),
        ("runs:\n  - {model: vade, seed: 2}\n", r"parameter of 06_vade in runs\.0 'seed'"),
        ("runs:\n  - {model: vade, epochs: 0}\n", "epochs must be positive"),
        ("runs:\n  - {model: cvae, condition: genra}\n", "did you mean 'genre'"),
        (RUN + "defaults: {epocs: 2}\n", "did you mean 'epochs'"),
        (RUN + "defaults: {settings: sigma=-1}\n", "sigma must not be negative"),
        (RUN + "seeds: [0, -1]\n", r"plan\.yaml\.seeds\.1: .*greater than or equal to 0"),
        (RUN + "profile: full\n", "at least 3 clips .* of 30.0 s"),
        (RUN + "corpora: {a: {variation: 2}}\n", r"corpora\.a: variation must be a number from 0 to 1"),
        (RUN + "corpora: {a: {fixed: [tempo, kee]}}\n", "did you mean 'key'"),
        (RUN + "corpora: {a: {folder: x, seed: 1}}\n", r"name in corpora\.a 'seed'"),
        (RUN + "corpora: {a: {demo: desk}}\n", "one desk at most"),
        (RUN + "corpora: {a: {}, b: {split_seed: 1}}\n", "two corpora share a store"),
        ("corpora: {a: {}, d: {demo: desk}}\nruns: [{model: vade, corpora: d}]\n", r"corpus in runs\.0 'd'"),
        ("runs: !!python/object:os.system [x]\n", "no plan can be read at"),
    ],
)
def test_a_bad_plan_is_one_sentence(written, text, says):
    with pytest.raises(InputError, match=says) as caught:
        written(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("epochs", "'epochs' cannot be set: give name=value"),
        ("epocs=2", "did you mean 'epochs'"),
        ("loop.seed=2", "did you mean 'loops'"),
        ("seed=3", "unknown name in defaults 'seed'"),
        ("loops.clips=2", r"name in corpora\.loops 'clips'"),
    ],
)
def test_a_bad_change_is_one_sentence(written, change, says):
    with pytest.raises(InputError, match=says):
        written(RUN, change)


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """Jobs of plans that are executed, without executing them; those of a notebook in `failing` fail."""
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    failing, seen = set(), []

    def run(jobs, workers=None):
        seen[:] = jobs
        return [Outcome(j, "failed" if j.notebook in failing else "done", reason=f"{j.notebook} failed") for j in jobs]

    monkeypatch.setattr(batch, "run", run)
    run.failing, run.seen = failing, seen
    return run


def test_corpora_come_before_trainings_and_trainings_before_the_comparison(executed, written, data, capsys):
    plan = written(DESK + "runs: [{model: [conv_vae, beta_vae, basic_vae, vade]}]\n")
    page = execute_plan(plan)
    jobs = executed.seen
    assert page.parent.name == "comparison-plan" and jobs[-1].after == tuple(range(len(jobs) - 1))
    assert [j.notebook for j in jobs[:3]] == ["01_preprocess"] * 3 and all(j.again for j in jobs[:3])
    beta, basic, conv, vade = jobs[3:7]
    assert beta.needs == (1, 0) and basic.needs == (1,)  # the desk is made first: its notebook is the longest
    assert conv.after == (4,) and vade.after == (5,)
    assert "summary.csv" in capsys.readouterr().out


def test_a_failure_is_raised_at_the_end_and_a_summary_is_written(executed, written, data, tmp_path):
    executed.failing.add("06_vade")
    plan = written("runs: [{model: [vade, basic_vae]}]\n")
    with pytest.raises(NotebookFailedError, match="06_vade failed"):
        execute_plan(plan)
    assert runs_of(plan) == ([], ["02_basic_vae-seed0: no finished run", "06_vade-seed0: no finished run"])
    assert "06_vade failed" in (tmp_path / "papermill" / "summary.csv").read_text()


def test_a_label_with_one_class_gets_no_conditional_model(store, executed, monkeypatch):
    given = {"corpora": {"tones": {"store": str(store.path)}}, "runs": [{"model": "cvae", "condition": "genre"}]}
    execute_plan(make_plan(given), compare=False)
    (job,) = executed.seen
    assert job.check() == ""
    alike = dataclasses.replace(store, table=store.table.assign(genre="pop"))
    monkeypatch.setattr(plans, "open_store", lambda path: alike)
    assert "fewer than two classes of genre" in job.check()


def test_the_estimate_grows_with_what_is_rendered_and_trained():
    loops = [{"corpora": {"loops": {"clips_per_genre": n}}, "runs": [{"model": "conv_vae"}]} for n in (10, 100)]
    little, much = (make_plan(values).seconds() for values in loops)
    assert 3 * little < much < 10 * little
