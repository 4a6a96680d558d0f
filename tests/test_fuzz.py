"""Files that anyone may have written: a proper result or one sentence, never code, a hang or all of the memory."""

import csv
import io
import json
import math
import os
import pickle
import resource
import struct
import subprocess

import pytest
import torch
import yaml
from conftest import model_config
from hypothesis import example, given
from hypothesis import strategies as st
from vaelib.planfile import DEMO, Plan, read_plan

from vaelib.checkpoints import read_model, read_tensors, write_tensors
from vaelib.collection import Corpus, read_corpus
from vaelib.config import InputError, RunConfig, read_json
from vaelib.models import build
from vaelib.runs import find_runs, load_run
from vaelib.training import State, Trainer, train
from vaelib.training import _read as read_run

from test_training import settings as run_settings  # isort: skip

MOST_MIB = 700  # that the process may grow by while it reads anything here
RTL = "\u202e\u05d0\u0645"
HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "~root/x",
    "a\nb",
    "a\r\nb",
    '"',
    "'",
    ";",
    "\t",
    "\ufeff",
    RTL,
    "😀.flac",
    "\ud800",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "$(id)",
    "x" * 5000,
    "NaN",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1_000",
    "0x10",
    "9" * 400,
    "2001-99-99",
    "1970-01-01",
    "true",
    "null",
    "C:\\x",
    "a/./b",
    "a//b",
    "!!python/object/apply:os.system ['touch pwned']",
    "*a",
    "&a x",
    "%s%n",
    "\\",
    "__class__",
    "path",
    "language",
]
words = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 2**63, 10**12, math.nan]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def no_code_and_no_blow_up(monkeypatch, tmp_path):
    """Nothing that was read is executed, and memory stays where it is."""

    def ran(*_, **__):
        pytest.fail("something that was read was executed")

    for where, name in ((os, "system"), (subprocess, "Popen"), (pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(where, name, ran)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MIB * 1024
    assert not (tmp_path / "pwned").exists()


def outcome(read, *given):
    """What was read, or None where it was refused in one short sentence."""
    try:
        return read(*given)
    except InputError as e:
        said = str(e)
        assert said.strip() and "Traceback" not in said and len(said) < 4000
        return None


# --- manifests ---


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"x")
    return folder


def corpus_of(music, content):
    (music / "manifest.csv").write_bytes(content)
    found = outcome(read_corpus, music)
    if found is not None:
        assert isinstance(found, Corpus) and len(found.table) > 0
        for path in found.table["path"]:
            assert music.resolve() in (music / path).resolve().parents, path
        assert len(found.fingerprint()) > 8
    return found


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda b: b"path,language\n" + b)))
@example(b"path\na.wav\n\xff\xfe\n")
@example("path,language\na.wav,en\n".encode("utf-16"))
@example(b"PAR1" + b"\0" * 40 + b"PAR1")
@example(b"\0" * 100)
@example(b"path\n" + b"a" * 100_000)
@example(b"path," + b"x," * 500 + b"\na.wav")
def test_a_manifest_of_any_bytes(music, content):
    corpus_of(music, content)


columns = st.one_of(
    st.sampled_from(
        ["path", "language", "genre", "family", "artist", "track", "split", "tempo", "n_frames", "level_db", "clip"]
    ),
    words,
)


@st.composite
def tables(draw):
    header = ["path", *draw(st.lists(columns, max_size=4))]
    header = draw(st.permutations(header))
    cell = st.one_of(words, numbers.map(str), st.just("a.wav"), st.just("b.wav"))
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header) + 1), max_size=4))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from(",,,;\t|")),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        escapechar="\\",
    )
    writer.writerows([header, *rows])
    bom = draw(st.sampled_from(["", "\ufeff"]))
    return (bom + text.getvalue()).encode(errors="surrogatepass")


@given(content=tables())
@example(b"path,path\na.wav,b.wav\n")
@example(b"path,language,language\na.wav,en,es\n")
@example(b"path,tempo\na.wav,1e999\nb.wav,nan\n")
@example(b"path,tempo\na.wav," + b"9" * 400 + b"\n")
@example(b"path,split\na.wav,test\nb.wav,rejected\n")
@example(b"path\na\0b.wav\n")
def test_a_manifest_of_any_table(music, content):
    corpus_of(music, content)


def test_a_manifest_with_a_byte_order_mark_is_read(music):
    assert corpus_of(music, "\ufeffpath,language\na.wav,en\n".encode()).table["language"].tolist() == ["en"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.wav", "b/../../a.wav", "a\0.wav", "link/passwd"])
def test_a_manifest_does_not_reach_outside_its_folder(music, path):
    link = music / "link"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc")
    try:
        found = corpus_of(music, f'path,language\n"{path}",en\n'.encode())
        assert found is None
    finally:
        link.unlink()


# --- plans ---


def plan_of(folder, text, changes=()):
    path = folder / "plan.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    found = outcome(read_plan, path, changes)
    assert found is None or (isinstance(found, Plan) and found.runs)
    return found


RUN = "runs:\n  - model: conv_vae\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
MERGES = "defaults:\n  a: &a {epochs: 1}\n" + "".join(
    f"  {new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        RUN + BOMB,
        RUN + MERGES,
        RUN + "defaults: &d {epochs: *d}\n",
        "[" * 20_000,
        RUN + "seeds: " + "[" * 5000,
        "{a: " * 3000,
        "- " * 20_000,
        RUN + "seeds: [" + "0," * 3000 + "]",
        "runs:\n" + "- {model: conv_vae}\n" * 600,
        RUN + "seeds: [0x" + "f" * 3000 + "]",
        RUN + "seeds: [" + "9" * 5000 + "]",
        "x" * 2_000_000,
        "runs:\n- model: conv_vae\n"
        + "".join(f"  {n}: {[v] * 400}\n" for n, v in (("epochs", 1), ("lr", 0.1), ("seed", 1))),
        "runs:\n- model: conv_vae\n"
        + "".join(f"  {n}: [{', '.join(f'{i + 1}' for i in range(2, 400))}]\n" for n in ("epochs", "lr", "batch_size")),
        "runs:\n- {model: !!python/object/apply:os.system ['touch pwned']}\n",
        "!!python/object/new:os.system ['touch pwned']\n",
        "!!python/name:os.system\n",
        RUN + "defaults: !!python/module:os\n",
        RUN + "defaults: !!int ''\n",
        RUN + "seeds: [!!bool x]\n",
        RUN + "seeds: [!!timestamp x]\n",
        RUN + "seeds: [!!float '']\n",
        "!!map [runs]\n",
        RUN + "? {a: b}\n: 1\n",
        RUN + "? [a]\n: 1\n",
        RUN + "2001-01-01: 1\n",
        "runs:\n- {model: conv_vae, 2001-01-01: 1}\n",
        RUN + "corpora: {a: {clips_per_genre: .inf}}\n",
        RUN + "corpora: {a: {clips_per_genre: 1e300}}\n",
        RUN + "corpora: {a: {clip_seconds: .inf}}\n",
        RUN + "corpora: {a: {clip_seconds: .nan}}\n",
        RUN + 'corpora: {a: {folder: "a\\0b"}}\n',
        RUN + "corpora: {a: {folder: ~nobody-of-that-name/x}}\n",
        RUN + 'corpora: {a: {folder: "\\ud800"}}\n',
        RUN + 'corpora: {a: {store: "\\0"}}\n',
        RUN + f"corpora: {{a: {{folder: {'x' * 1500}}}}}\n",
        RUN + "defaults: {lr: .nan}\n",
        RUN + "defaults: {lr: .inf}\n",
        RUN + "\0",
        "\ud800",
        "%YAML 9.9\n---\n",
        "--- a\n--- b\n",
    ],
    ids=range(43),
)
def test_hostile_plans_are_refused(tmp_path, text):
    assert plan_of(tmp_path, text) is None


@given(
    text=st.one_of(
        st.text(max_size=200), st.binary(max_size=100), st.text(alphabet="-:[]{}&*!|>'\"%@`#?, \nabz0.", max_size=80)
    )
)
def test_a_plan_of_any_text(tmp_path, text):
    plan_of(tmp_path, text)


names = st.one_of(
    st.sampled_from(
        ["model", "corpora", "epochs", "lr", "seed", "store", "beta", "priors", "condition", "dropout", "components"]
    ),
    words,
)
some = st.one_of(values, st.sampled_from(["conv_vae", "vade", 1, 0.5, [1, 2]]))
plans = st.fixed_dictionaries(
    {
        "runs": st.lists(
            st.fixed_dictionaries({"model": st.sampled_from(["conv_vae", "cvae", ["vade", "beta_vae"]])}).flatmap(
                lambda run: st.dictionaries(names, some, max_size=3).map(lambda more: more | run)
            ),
            min_size=1,
            max_size=3,
        )
    },
    optional={
        "seeds": st.one_of(some, st.lists(numbers, max_size=3)),
        "profile": some,
        "defaults": st.one_of(some, st.dictionaries(names, some, max_size=3)),
        "corpora": st.one_of(
            some,
            st.dictionaries(
                st.sampled_from(["a", "b"]),
                st.dictionaries(st.sampled_from([*DEMO, "folder", "store", "split_seed", "windows"]), some, max_size=3),
                max_size=2,
            ),
        ),
    },
)


@given(given_plan=st.one_of(values, plans))
def test_a_plan_of_any_values(tmp_path, given_plan):
    plan_of(tmp_path, yaml.safe_dump(given_plan))


@given(
    change=st.one_of(
        words, st.tuples(names, words).map("=".join), st.tuples(names, words).map(lambda p: f"loops.{p[0]}={p[1]}")
    )
)
@example("epochs=2001-99-99,1")
@example("epochs=" + "[" * 5000)
@example("lr=&a [*a]")
@example("seeds=!!int ''")
def test_any_change_of_a_plan(tmp_path, change):
    plan_of(tmp_path, RUN, [change])


# --- checkpoints ---


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a good checkpoint."""
    path = tmp_path_factory.mktemp("sound") / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}, {"epoch": 1, "history": [{}]})
    return path.read_bytes()


def tensors_of(folder, content):
    path = folder / "x.safetensors"
    path.write_bytes(content)
    found = outcome(read_tensors, path)
    if found is not None:
        tensors, state = found
        assert all(isinstance(t, torch.Tensor) for t in tensors.values()) and isinstance(state, dict)
    return found


def header(about, data=b"", size=None):
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


@given(content=st.binary(max_size=300))
@example(b"")
def test_a_checkpoint_of_any_bytes(tmp_path, content):
    tensors_of(tmp_path, content)


@given(data=st.data())
def test_a_checkpoint_that_is_cut_or_has_flipped_bits(tmp_path, sound, data):
    content = bytearray(sound)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    tensors_of(tmp_path, bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize(
    "content",
    [
        header(b"{}", size=2**63),
        header(b"{}", size=10**12),
        header(b"[" * 100_000),
        header(b"[]"),
        header(b"null"),
        header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        header({"__metadata__": {"state": "[]"}}),
        header({"__metadata__": {"state": "[" * 100_000}}),
        header({"__metadata__": {"state": "9" * 10_000}}),
        header({"__metadata__": {"state": "x"}}),
        header({"__metadata__": 5}),
        pickle.dumps({"a": 1}),
        b"PK\x03\x04" + b"\0" * 60,
    ],
    ids=range(16),
)
def test_hostile_checkpoints_are_refused(tmp_path, content):
    assert tensors_of(tmp_path, content) is None


class Bomb:
    def __reduce__(self):
        return os.mkdir, (str(Bomb.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, old"])
def test_a_pickle_that_is_called_a_checkpoint_runs_nothing(tmp_path, kind):
    Bomb.path, path = tmp_path / "ran", tmp_path / "best.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"a": Bomb()}, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(InputError, match=r"best.safetensors cannot be read"):
        read_tensors(path)
    assert not Bomb.path.exists()


# --- runs ---


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A finished run, and the content of its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("finished")))
        folder = train(run_settings(store, "conv_vae", epochs=1), store, show=False)
        return folder, {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def run_of(finished, **files):
    folder, sound = finished
    for name, content in sound.items():
        changed = files.get(name.replace(".", "_"), content)
        (folder / name).write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    run = outcome(load_run, folder)
    outcome(read_run, folder / "config.json")
    found = find_runs(folder.parent)
    assert run is None or found == [folder]
    return run


@given(content=st.one_of(st.binary(max_size=60), values))
@example(b"[" * 100_000)
@example(b"[]")
@example(b"9" * 10_000)
@example(b'"config"')
def test_a_config_of_any_json(finished, content):
    assert run_of(finished, config_json=content) is None


@given(content=st.one_of(st.binary(max_size=60), values))
def test_a_summary_of_any_json(finished, content):
    run = run_of(finished, done_json=content)
    assert run is None or isinstance(run.summary, dict)


@given(data=st.data())
def test_a_config_with_any_value_anywhere(finished, data):
    about = json.loads(finished[1]["config.json"])
    part = data.draw(
        st.sampled_from(
            [about, about["config"], about["scaler"], *(about["config"][k] for k in ("model", "training", "front_end"))]
        )
    )
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(values)
    run_of(finished, config_json=about)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("model", "latent", 10**12),
        ("model", "latent", 10**400),
        ("model", "input_shape", [10**9, 10**9]),
        ("model", "input_shape", [0, 0]),
        ("model", "input_shape", [-5, 3]),
        ("model", "input_shape", [1]),
        ("model", "name", "os.system"),
        ("model", "classes", 5),
        ("model", "prior", {}),
        ("training", "epochs", "many"),
        ("front_end", "frames", 10**15),
        ("front_end", "n_mels", 1.5),
    ],
)
def test_a_config_that_claims_any_size_is_refused(finished, part, key, value):
    about = json.loads(finished[1]["config.json"])
    about["config"][part][key] = value
    assert run_of(finished, config_json=about) is None


@pytest.mark.parametrize(
    "place", ["", "/etc", "../../etc", "\0", "~", "\ud800", "/dev/zero", "x" * 5000, 5, None, ["a"], {}]
)
def test_a_config_with_a_hostile_store_is_refused(finished, place):
    about = json.loads(finished[1]["config.json"]) | {"store": place}
    assert run_of(finished, config_json=about) is None


def test_a_model_takes_no_more_memory_than_its_checkpoint_has(tmp_path):
    small = build(model_config("basic_vae"))
    write_tensors(tmp_path / "best.safetensors", small.state_dict(), {"epoch": 1})
    with pytest.raises(InputError, match="of another shape"):
        read_model(model_config("basic_vae", shape=(4096, 4096), latent=512), tmp_path / "best.safetensors")
    again = read_model(model_config("basic_vae"), tmp_path / "best.safetensors")
    assert not again.training and all(torch.equal(v, small.state_dict()[k]) for k, v in again.state_dict().items())


@given(
    state=st.one_of(
        values,
        st.fixed_dictionaries(
            {"epoch": values, "best_epoch": values, "best_loss": values, "history": values, "pretrained": values}
        ),
    )
)
@example({"epoch": 2, "best_epoch": 1, "best_loss": math.inf, "history": [{}, {}], "pretrained": ""})
@example({"epoch": 2, "best_epoch": 1, "best_loss": 1.0, "history": [1, 2], "pretrained": ""})
def test_the_state_of_a_checkpoint_is_checked(tmp_path, state):
    found = outcome(State.read, state, tmp_path) if isinstance(state, dict) else None
    assert found is None or len(found.history) == found.epoch


def test_an_optimizer_of_another_model_is_refused(store, outputs):
    config = run_settings(store, "conv_vae", epochs=2)
    trainer = Trainer(config, store, show=False)
    trainer._kept_epoch()
    trainer._save()
    last = config.folder / "last.safetensors"
    tensors, state = read_tensors(last)
    for changed in (
        {"optimizer.999.exp_avg": torch.zeros(3)},
        {"optimizer.0.exp_avg": torch.zeros(3)},
        {"optimizer.x": torch.zeros(1)},
    ):
        write_tensors(last, tensors | changed, state)
        with pytest.raises(InputError, match="another optimizer's state"):
            train(config, store, show=False)


def test_json_of_strangers(tmp_path):
    path = tmp_path / "x.json"
    for content in (b"", b"[1]", b"[" * 100_000, b"\xff", b"{" + b" " * (17 << 20) + b"}"):
        path.write_bytes(content)
        assert outcome(read_json, path) is None
    assert outcome(read_json, tmp_path / "none.json") is None
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    with pytest.raises(InputError):
        RunConfig.from_dict({"corpus": 1})
