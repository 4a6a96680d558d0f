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
    "progress",
    "audio",
    "corpus",
    "store",
    "descriptors",
    "windows",
    "demo",
    "nets",
    "models",
    "losses",
    "checkpoints",
    "training",
    "runs",
    "evaluation",
    "plots",
    "proofs",
    "explore",
    "reports",
    "shelf",
    "batch",
    "planfile",
    "plans",
    "cli",
]
ONLY = {"demo": {"config", "progress", "audio"}, "evaluation": {"config"}}
MODULES = sorted(p.relative_to(HOUSE) for p in HOUSE.rglob("*.py") if p.name != "__main__.py")
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


def test_training_needs_nothing_that_a_gpu_host_lacks():
    script = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT_ON_A_GPU_HOST}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
try:
    import librosa
except ModuleNotFoundError:
    pass
else:
    sys.exit("the blocker does not block")
import vaelib.models, vaelib.losses, vaelib.training, vaelib.checkpoints, vaelib.windows, vaelib.store, vaelib.runs
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] not in ("cli.py", "__init__.py")], ids=str)
def test_everything_public_has_a_docstring(path):
    tree = ast.parse((HOUSE / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    assert ast.get_docstring(tree), f"{path} says nothing about itself"
    assert not [n.name for n in public if not ast.get_docstring(n)]
