"""Notebooks as jobs: parameters, names, failures that leave others running, kills that lose nothing, workers."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import dask
import nbformat
import pandas as pd
import psutil
import pytest
from conftest import write_notebook
from distributed import Client, LocalCluster
from safetensors.torch import load_file

from vaelib import batch, plans
from vaelib.batch import NOTEBOOK, NotebookFailedError, Workers, connected, execute, raise_failures
from vaelib.config import InputError
from vaelib.plans import Job, checked
from vaelib.runs import find_runs

PARAMETERS = """n: int = 1  # a number
rate: float = 0.5  # a rate
name: str = ""  # a word
flag: bool = False  # a switch"""
REFUSES = "from vaelib.config import InputError\nraise InputError('no clip is usable')"
LIVE = "import sys\nfrom tqdm import tqdm\nfor _ in tqdm(range(9), 'busy', mininterval=0, file=sys.stdout): pass"
WAITS = """from pathlib import Path
import time
Path(f"here{n}").touch()
end = time.monotonic() + 300
while not Path(f"here{1 - n}").exists():
    assert time.monotonic() < end, "alone"
    time.sleep(0.05)
print("together")"""
# Kills its Dask worker as many times as the file says, and then succeeds
KILLS = """import os, signal
from pathlib import Path
left = Path(name)
times = int(left.read_text()) if left.exists() else n
if times:
    left.write_text(str(times - 1))
    os.kill(os.getppid(), signal.SIGKILL)
print("alive")"""
TRAINS = """from vaelib import training
from vaelib.runs import fit, plan
from vaelib.store import open_store
training.SAVE_EVERY_S, opened = rate, open_store(name)
run = fit(plan(opened, "conv_vae", epochs=n, latent=8), opened)"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with `notebooks` of the test's own; executed ones go to `runs`."""
    monkeypatch.setenv("VAELIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "runs"))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "notebooks").mkdir()
    cells = {
        "good": "print(n, rate, name, flag)", "bad": "raise ValueError('the reason')", "refuses": REFUSES,
        "dead": "import os; os._exit(3)", "live": LIVE, "waits": WAITS, "kills": KILLS, "trains": TRAINS,
    }  # fmt: skip
    for name, cell in cells.items():
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", PARAMETERS, cell)
    return tmp_path


def test_strings_take_the_type_of_the_default(folder):
    given = {"n": "3", "rate": "1e-3", "flag": "true", "name": 5}
    assert checked("good", given) == {"n": 3, "rate": 1e-3, "flag": True, "name": "5"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nme": 2}, "did you mean 'name'"),
        ({"n": "many"}, r"notebook good\.n: .* integer"),
        ({"rate": float("nan")}, "finite"),
    ],
)
def test_wrong_parameters_are_named_before_anything_runs(folder, given, says):
    with pytest.raises(InputError, match=says):
        batch.run([Job("bad"), Job("good", given)])
    assert not (folder / "runs").exists()


def test_the_name_changes_with_code_and_parameters_but_not_with_words(folder, monkeypatch):
    given = {"condition": "genre", "detilt": True, "lr": 0.01, "seed": 0}
    assert Job("05_conditional_vae", given, "genre").title == "05_conditional_vae-genre-detilt-lr0.01-seed0"
    name = Job("good").final
    assert len({name, Job("good", {"n": 2}).final, Job("good", page=False).final}) == 3
    path = folder / "notebooks" / "good.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("Words"))
    nbformat.write(nb, path)
    assert Job("good").final == name
    monkeypatch.setattr(plans.config, "code_version", lambda: "other training code")
    assert Job("good").final != name


def test_a_notebook_is_executed_once_and_becomes_a_page(folder):
    lines = []
    done = execute(Job("live", page=False), lines.append)
    assert done.state == "done" and lines[0].startswith("busy:   0%") and "9/9" in lines[-1]
    assert execute(Job("live", page=False)).state == "already done"
    assert execute(Job("live", page=False, again=True)).state == "done"
    assert not done.path.with_suffix(".html").exists()
    page = execute(Job("good", {"n": 5})).path
    assert page.with_suffix(".html").is_file() and page.name in (folder / "runs" / "index.html").read_text()
    assert not [p.name for p in (folder / "runs").glob("*") if "partial" in p.name]


def test_a_full_disk_or_a_page_that_fails_is_a_failure(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaelib.report.write_html", full)
    outcome = execute(Job("good"))
    assert outcome.state == "failed" and "No space left" in outcome.reason and not Job("good").is_done()


def test_a_second_process_waits_for_the_first(folder):
    write_notebook(folder / "notebooks" / "slow.ipynb", PARAMETERS, "import time\ntime.sleep(6)")
    script = "from vaelib.batch import Job, execute\nexecute(Job('slow', page=False))"
    first = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: list((folder / "runs").glob("slow*.partial.ipynb")), 120)
    assert execute(Job("slow", page=False)).state == "already done" and first.wait() == 0


def test_failures_are_kept_and_others_run_on(folder, capsys):
    """The first two notebooks wait for a file of each other: one after the other they would never end."""
    jobs = [Job("waits", {"n": 0}), Job("waits", {"n": 1}), Job("bad"), Job("good"), Job("refuses"), Job("dead")]
    execute(jobs[3])
    outcomes = batch.run(jobs, Workers(2))
    assert [o.job for o in outcomes] == jobs
    assert [o.state for o in outcomes] == ["done", "done", "failed", "already done", "refused", "failed"]
    bad, refused, dead = outcomes[2], outcomes[4], outcomes[5]
    assert bad.path.name.endswith(".failed.ipynb") and "the reason" in bad.path.with_suffix(".log").read_text()
    assert refused.path is None and refused.reason == "no clip is usable" and "died" in dead.reason
    assert "6/6 notebooks" in capsys.readouterr().err
    table = pd.read_csv(batch.write_summary(outcomes), keep_default_na=False)
    assert table["state"].tolist() == [o.state for o in outcomes]
    assert 0 < table["around"][0] <= table["seconds"][0] and table["around"][3] == 0
    assert "the reason" in (folder / "runs" / "index.html").read_text()
    with pytest.raises(NotebookFailedError, match=r"the reason.* \| no clip is usable"):
        raise_failures(outcomes)
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        raise_failures([outcomes[3], refused])
    raise_failures(outcomes[:2])


def test_what_a_job_needs_and_what_it_only_waits_for(folder):
    jobs = [
        Job("bad"), Job("good", needs=(0,)), Job("good", {"n": 2}, after=(0, 1)), Job("good", {"n": 3}, needs=(1,)),
        Job("good", {"n": 4}, check=partial(str, "no music")),
    ]  # fmt: skip
    outcomes = batch.run(jobs, Workers(1))
    assert [o.state for o in outcomes] == ["failed", "left out", "done", "left out", "left out"]
    assert [o.reason for o in outcomes[3:]] == ["good could not be made", "no music"]


def test_a_job_knows_the_runs_that_its_notebook_trained(folder, store):
    job = Job("trains", {"name": str(store.path), "n": 1}, page=False)
    assert not job.is_done() and job.runs() == []
    execute(job)
    assert job.is_done() and job.runs() == find_runs(model="conv_vae", epochs=1)
    (job.runs()[0] / "done.json").unlink()
    assert not job.is_done()


@pytest.mark.parametrize("many", [False, True])
def test_an_interrupt_says_that_the_same_command_continues(folder, many):
    call = "run([Job('waits')], Workers(1))" if many else "run_alone(Job('waits'))"
    script = f"from vaelib.batch import *\nif __name__ == '__main__': {call}"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    wait_for((folder / "notebooks" / "here1").exists, 300)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert batch.INTERRUPTED in said and process.returncode and not list((folder / "runs").glob("*[0-9a-f].ipynb"))


def test_a_scheduler_that_goes_away_leaves_a_summary(folder, monkeypatch):
    quiet = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**quiet, protocol="tcp://", host="127.0.0.1", resources={NOTEBOOK: 1}) as cluster:
        monkeypatch.setattr(batch.time, "sleep", lambda seconds: cluster.close())
        outcomes = batch.run([Job("waits"), Job("good", after=(0,))], Workers(scheduler=cluster.scheduler_address))
    assert [(o.state, o.reason) for o in outcomes] == [("failed", batch.GONE)] * 2


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=["usual locale", "no UTF-8"])
def test_whatever_the_machine_notebooks_run(tmp_path, locale):
    """Strange names of folders and in comments, a long TMPDIR, another kernel called python3."""
    base = tmp_path / "h ome {b}=c %41 'q' \"d\" ü"
    (base / "kernels" / "python3").mkdir(parents=True)
    (base / "kernels" / "python3" / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "x"}')
    (base / ("long" * 25)).mkdir()
    write_notebook(base / "strange.ipynb", 'name: str = ""  # a = "word" of {{x}}, 5 %s', "print(name, 'ü')")
    told = {"HOME": base, "VAELIB_NOTEBOOKS": base, "VAELIB_PAPERMILL": base, "JUPYTER_PATH": base}
    told |= locale | {"TMPDIR": base / ("long" * 25)}
    job = f"batch.Job('strange', {{'name': {str(base)!a}}})"
    script = f"from vaelib import batch, cli\ncli.app = lambda: exit(batch.run_alone({job}) and 0)\ncli.main()"
    told = os.environ | {name: str(value) for name, value in told.items()}
    done = subprocess.run([sys.executable, "-c", script], env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = base.glob("strange-*[0-9a-f].ipynb")
    assert nbformat.read(path, 4).cells[2].outputs[0].text == f"{base} ü\n"


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_its_notebook_too(folder):
    """Once is forgiven; a notebook that kills every worker fails, and the others run on.

    Dask's own patience with a worker that is lost is shorter than a start: the batch must have more.
    """
    jobs = [Job("kills", {"n": 1, "name": "once"}), Job("kills", {"n": 9, "name": "always"}), Job("good")]
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "50ms"}):
        outcomes = batch.run(jobs, Workers(1))
    assert [o.state for o in outcomes] == ["done", "failed", "done"]
    assert "KilledWorker" in outcomes[1].reason


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_the_same_call_ends_with_the_same_numbers(folder, store, monkeypatch):
    given = {"name": str(store.path), "n": 40, "rate": 0.1}
    script = f"""
from vaelib.batch import Job, Workers, run
run([Job("trains", {given})], Workers(2))
"""
    outputs = {name: folder / name for name in ("killed", "whole")}
    environment = os.environ | {"VAELIB_OUTPUTS": str(outputs["killed"])}
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(outputs["killed"].rglob("last.safetensors")), 300)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) >= 2  # worker and kernel
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive
    assert not list((folder / "runs").glob("trains-*[0-9a-f].ipynb")) and not list(outputs["killed"].rglob("done.json"))
    weights = {}
    for name, root in outputs.items():
        monkeypatch.setenv("VAELIB_OUTPUTS", str(root))
        assert [o.state for o in batch.run([Job("trains", given, again=True)], Workers(2))] == ["done"]
        (run,) = find_runs()
        weights[name] = load_file(run / "best.safetensors")
    assert all((weights["killed"][k] == v).all() for k, v in weights["whole"].items())


def test_every_worker_sees_its_own_gpu(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with pytest.raises(InputError, match="--gpus 0,2: this machine has 4, 7"):
        Workers(gpus="0,2").devices()
    sees = "import os\nopen(f'gpu{n}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    write_notebook(folder / "notebooks" / "sees.ipynb", PARAMETERS, sees + WAITS)
    outcomes = batch.run([Job("sees", {"n": 0}), Job("sees", {"n": 1})], Workers(gpus="all"))
    assert [o.state for o in outcomes] == ["done", "done"]
    assert sorted(p.read_text() for p in (folder / "notebooks").glob("gpu*")) == ["4", "7"]


def test_workers_of_a_running_scheduler(monkeypatch):
    monkeypatch.setattr(batch, "SECONDS", 0.5)
    with (
        pytest.raises(InputError, match="no Dask scheduler answers"),
        connected(Workers(scheduler="tcp://127.0.0.1:9")),
    ):
        pass
    quiet = {"processes": False, "n_workers": 1, "dashboard_address": None, "threads_per_worker": 2}
    quiet |= {"protocol": "tcp://", "host": "127.0.0.1"}
    with LocalCluster(**quiet) as other, pytest.raises(InputError, match='--resources "notebook=1"'):
        connected(Workers(scheduler=other.scheduler_address)).__enter__()
    with LocalCluster(**quiet, resources={NOTEBOOK: 1}) as other:
        address = other.scheduler_address
        with connected(Workers(scheduler=address)) as client:
            assert isinstance(client, Client) and client.submit(sum, [1, 2], resources={NOTEBOOK: 1}).result() == 3


def test_a_queue_is_asked_for_workers_that_take_notebooks(monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue")
    asked = []
    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", lambda self, jobs: asked.append(jobs))
    section = dict(dask.config.get("jobqueue.slurm"), cores=4, memory="8GB", queue="gpu")
    with dask.config.set({"jobqueue.mine": section}):
        made = batch._queued(Workers(count=3, slurm="mine"), 9)
        try:
            script = made.job_script()
        finally:
            made.close()
    assert asked[0] == 3 and "#SBATCH -p gpu" in script and "--resources notebook=1" in script
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)  # imported anew, it takes Ctrl-C for itself
    interrupt = signal.getsignal(signal.SIGINT)
    with pytest.raises(InputError, match="no section 'none'"):
        batch._queued(Workers(slurm="none"), 9)
    assert signal.getsignal(signal.SIGINT) is interrupt
