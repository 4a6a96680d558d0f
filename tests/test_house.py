"""The house: imports go one way, a bare GPU host is enough to train, everything public says what it is for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vaelib

HOUSE = Path(vaelib.__file__).parent
ROOMS = [
    "config",
    "provenance",
    "progress",
    "locks",
    "memory",
    "tasks",
    "soundfiles",
    "audio",
    "demo",
    "manifest",
    "datasets",
    "duplicates",
    "corpus",
    "store",
    "preprocess",
    "descriptors",
    "collection",
    "windows",
    "nets",
    "models",
    "losses",
    "checkpoints",
    "steps",
    "devices",
    "training",
    "runs",
    "bench",
    "evaluation",
    "embedding",
    "plots",
    "proofs",
    "explore",
    "reports",
    "shelf",
    "cluster",
    "jobs",
    "engine",
    "batch",
    "entries",
    "planfile",
    "plans",
    "cli",
]
ONLY = {"demo": {"config", "progress", "audio"}, "evaluation": {"config"}}
MODULES = sorted(p.relative_to(HOUSE) for p in HOUSE.rglob("*.py") if p.name != "__main__.py")
# What a host with only torch and numpy has not, though the rest of vaelib asks for it
ABSENT_ON_A_BARE_HOST = [
    "pandas", "xarray", "zarr", "lightning", "lightning_fabric", "safetensors", "sklearn", "scipy", "torchaudio",
    "soundfile", "PIL", "dask", "distributed", "yaml", "typer", "nbformat", "tqdm", "pretty_midi",
]  # fmt: skip
ABSENT_ON_A_GPU_HOST = ["librosa", "IPython", "ipywidgets", "papermill", "matplotlib", "umap", "jupyterlab", "seaborn"]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of vaelib that a module imports anywhere, inside functions too."""
    package = ["vaelib", *path.parent.parts]
    found = set()
    for node in ast.walk(ast.parse((HOUSE / path).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, a.name]) for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("vaelib.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_room_imports_from_earlier_rooms_only(path):
    room = path.parts[0].removesuffix(".py")
    if room == "__init__":
        assert not imported_rooms(path)
        return
    assert room in ROOMS, f"{path} has no place in the order of rooms: add it to ROOMS and to CONTRIBUTING"
    allowed = ONLY.get(room, set(ROOMS[: ROOMS.index(room)])) | ({room} if len(path.parts) > 1 else set())
    assert imported_rooms(path) <= allowed


def test_the_import_check_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "HOUSE", tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "a.py").write_text(
        "from . import b\nfrom ..audio import load\nfrom .. import nets\nimport vaelib.cli\nfrom vaelib import runs\n"
        "def f():\n    from vaelib.store import x\nimport json, os.path\nfrom xarray import vaelib\n"
    )
    assert imported_rooms(Path("demo/a.py")) == {"demo", "audio", "nets", "cli", "runs", "store"}


def runs_without(absent: list[str], script: str) -> None:
    """Run a script in a fresh interpreter that cannot import what is absent."""
    blocker = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {absent} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
try:
    import {absent[0]}
except ModuleNotFoundError:
    pass
else:
    sys.exit("the blocker does not block")
"""
    done = subprocess.run([sys.executable, "-c", blocker + script], capture_output=True, text=True, cwd=HOUSE.parent)
    assert done.returncode == 0, done.stderr


def test_training_needs_nothing_that_a_gpu_host_lacks():
    rooms = ("models", "losses", "training", "checkpoints", "windows", "store", "runs")
    runs_without(ABSENT_ON_A_GPU_HOST, "import " + ", ".join(f"vaelib.{room}" for room in rooms))


def test_a_step_needs_only_torch_and_numpy():
    script = """
import numpy, torch
from vaelib import config, losses, models, nets, steps, windows
clips = windows.Clips(torch.rand(4, 16, 20).half(), torch.tensor([16, 17, 18, 20]), 16, numpy.arange(4))
step = steps.Stepper(models.build(config.ModelConfig("vade", (16, 16), latent=4)), config.TrainConfig(), "cpu")
for mixture in (False, True):
    for x, index in clips.batches(4, per_clip=2):
        weights = steps.weights_at(config.TrainConfig(), 1.0, mixture)
        assert all(v.isfinite() for v in step(x, torch.full((8,), -1), weights, 1.0).values())
"""
    runs_without(ABSENT_ON_A_BARE_HOST + ABSENT_ON_A_GPU_HOST, script)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] not in ("cli.py", "__init__.py")], ids=str)
def test_everything_public_has_a_docstring(path):
    tree = ast.parse((HOUSE / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    assert ast.get_docstring(tree), f"{path} says nothing about itself"
    assert not [n.name for n in public if not ast.get_docstring(n)]
