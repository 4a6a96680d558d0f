"""Random crops, evenly spaced windows, clips in a mapped file, and the one function that encodes windows."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY, model_config

from vaelib import windows
from vaelib.models import build
from vaelib.windows import Clips, encode_windows, load_data


@pytest.fixture(scope="module")
def clips(store):
    return Clips.read(store, store.fit_scaler(), store.rows("train"))


def counting(lengths=(16, 17, 30, 40)) -> Clips:
    """Clips whose every value is its frame number."""
    mel = torch.arange(max(lengths)).expand(len(lengths), 2, -1).half()
    return Clips(mel, torch.tensor(lengths), 16, np.arange(len(lengths)))


def test_clips_are_the_scaled_spectrograms(clips, store):
    assert len(clips) == 24 and clips.width == TINY.frames and clips.mel.dtype == torch.float16
    for i in (0, 9, 23):
        want = store.spectrogram(store.rows("train")[i], store.fit_scaler())
        assert want.shape[1] == clips.n_frames[i]
        assert np.abs(clips.mel[i, :, : want.shape[1]].numpy() - want).max() < 1e-3


def test_random_windows_lie_inside_and_reach_both_ends():
    torch.manual_seed(0)
    x = counting().random_windows(torch.arange(4).repeat(500))
    assert x.shape == (2000, 1, 2, 16) and x.dtype == torch.float32 and (x.diff(dim=3) == 1).all()
    starts = x[:, 0, 0, 0].view(500, 4)
    assert starts.amin(0).tolist() == [0, 0, 0, 0] and starts.amax(0).tolist() == [0, 1, 14, 24]
    assert starts[:, 3].mean() == pytest.approx(12, abs=1)


@pytest.mark.parametrize(("n", "starts"), [(1, [12]), (2, [0, 24]), (4, [0, 8, 16, 24])])
def test_even_windows_go_from_the_first_to_the_last(n, starts):
    x = counting().even_windows(torch.tensor([3, 0]), n)
    assert x.shape == (2, n, 1, 2, 16) and x[0, :, 0, 0, 0].tolist() == starts and not x[1, :, 0, 0, 0].any()


@pytest.mark.parametrize(("batch", "per_clip"), [(8, 1), (7, 2), (64, 1)])
def test_one_pass_visits_every_clip_in_full_batches(clips, batch, per_clip):
    torch.manual_seed(0)
    found = list(clips.batches(batch, per_clip))
    assert {(len(x), len(i)) for x, i in found} == {(batch * per_clip, batch)} and len(found) == -(-24 // batch)
    assert torch.cat([i for _, i in found])[:24].unique().tolist() == list(range(24))


def test_processes_share_the_batches_of_one(clips):
    def visited(share):
        torch.manual_seed(0)
        return list(clips.batches(8, 2, share))

    whole, parts = visited((0, 1)), [visited((rank, 2)) for rank in range(2)]
    for (x, i), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(x, torch.cat([part[0] for part in shares]))
        assert torch.equal(i, torch.cat([part[1] for part in shares]))


def test_of_a_store_from_the_start_every_window_is_the_first(store, clips):
    first = dataclasses.replace(store, attrs=store.attrs | {"windows": "start"})
    found = Clips.read(first, store.fit_scaler(), store.rows("train"))
    index = torch.arange(24)
    wanted = clips.cut(index, torch.zeros_like(index))
    assert torch.equal(found.random_windows(index), wanted) and torch.equal(found.even_windows(index, 3)[:, 2], wanted)
    assert (found.distinct(5), clips.distinct(5)) == (1, 5)


def test_clips_that_do_not_fit_lie_in_a_file_that_nobody_sees(store, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "_free_memory", lambda: 1)
    monkeypatch.setattr(windows, "BLOCK_BYTES", 4 * clips.mel[0].numel() * 5)  # blocks of five clips
    data = load_data(store, store.fit_scaler(), "language", torch.device("cpu"), tmp_path)
    assert torch.equal(data.train.mel, clips.mel) and not list(tmp_path.iterdir())
    assert data.train_y.tolist() == store.codes("language", store.rows("train")).tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_posteriors_are_those_of_every_window(clips, monkeypatch, count):
    monkeypatch.setattr(windows, "ENCODED", 10)
    torch.manual_seed(0)
    model = build(model_config("cvae")).eval()
    y = torch.arange(24) % 3
    x = clips.even_windows(torch.arange(24), count).flatten(0, 1)
    with torch.no_grad():
        p = model.encode(x).class_logits.softmax(1)
        for how, given in (({}, None), ({"y": y}, y.repeat_interleave(count)), ({"marginal": True}, p)):
            found, want = encode_windows(model, clips, count, **how), model.encode(x, given)
            assert found.class_logits.shape == (24, count, 3)
            assert torch.allclose(found.mean.flatten(0, 1), want.mean, atol=1e-5)
            assert torch.allclose(found.logvar.flatten(0, 1), want.logvar, atol=1e-5)
