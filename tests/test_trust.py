"""Files are data: nothing in the library, the notebooks or Jupyter's settings lets what is read become code."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from traitlets.config import PyFileConfigLoader

from vaelib.config import ROOT

MODULES = sorted((ROOT / "vaelib").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CALLS = {"eval", "exec", "compile", "__import__"}
IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "imp"}
METHODS = {
    "yaml": {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"},
    "pd": {"read_pickle"},
    "os": {"system", "popen"},
    "importlib": {"import_module"},
}


def dangers(source: str) -> list[str]:
    """What in a module could turn something that was read into code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        found += [f"import {n}" for n in names if n.split(".")[0] in IMPORTS]
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append(node.func.id)
        if isinstance(node.func, ast.Attribute):
            of, name = getattr(node.func.value, "id", ""), node.func.attr
            if name in METHODS.get(of, ()):
                found.append(f"{of}.{name}")
            if (of, name) == ("torch", "load") and given.get("weights_only") is not True:
                found.append("torch.load")
        found += ["allow_pickle"] if given.get("allow_pickle") else []
        found += ["shell"] if given.get("shell") else []
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_in_the_library_turns_data_into_code(path):
    allowed = ["importlib.import_module"] if path.name == "datasets.py" else []  # of a name in mirdata's own list
    assert dangers(path.read_text()) == allowed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_in_the_notebooks_turns_data_into_code(path):
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert not any(line.startswith(("!", "%")) for cell in cells for line in cell.splitlines())
    assert not dangers("\n".join(cells))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib",
        "eval('1')",
        "exec(x)",
        "compile(x, '', 'exec')",
        "yaml.load(f, Loader)",
        "yaml.unsafe_load(f)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=x)",
        "np.load(p, allow_pickle=True)",
        "pd.read_pickle(p)",
        "os.system('x')",
        "subprocess.run('x', shell=True)",
        "__import__('x')",
    ],
)
def test_the_look_at_the_code_sees_every_danger(source):
    assert dangers(source)
    assert not dangers(
        "model.eval()\nyaml.safe_load(f)\ntorch.load(p, weights_only=True)\nast.literal_eval(x)\nre.compile(x)"
    )


# --- JupyterLab ---

ALLOWED = {  # what the repository's settings may touch of the server
    ("FileContentsManager", "post_save_hook"),
    ("ServerApp", "kernel_websocket_connection_class"),
}


def test_jupyterlab_keeps_its_token_and_stays_on_this_machine():
    loader = PyFileConfigLoader("jupyter_server_config.py", str(ROOT))
    settings = loader.load_config()
    exporters = {name for name in settings if name.endswith(("Exporter", "Preprocessor"))}
    touched = {(name, key) for name in set(settings) - exporters for key in settings[name]}
    assert touched == ALLOWED
    from jupyter_server.serverapp import ServerApp

    app = ServerApp(config=settings)
    app.init_configurables()
    assert app.identity_provider.token and app.identity_provider.auth_enabled
    assert app.ip in ("localhost", "127.0.0.1") and not app.allow_remote_access
    assert not app.allow_origin and not app.allow_origin_pat and not app.disable_check_xsrf


def test_make_lab_keeps_its_token_and_stays_on_this_machine():
    recipes = re.findall(r"jupyter lab[^\n]*", (ROOT / "Makefile").read_text())
    assert recipes
    for recipe in recipes:
        assert "--ServerApp.ip=127.0.0.1" in recipe
        assert not re.search(r"token|password|allow_origin|xsrf|allow_remote|0\.0\.0\.0", recipe)


def test_notebooks_bring_no_trusted_outputs():
    for path in NOTEBOOKS:
        cells = json.loads(Path(path).read_text())["cells"]
        assert not any(c.get("outputs") or c["metadata"].get("trusted") for c in cells), path.name
