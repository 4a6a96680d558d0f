"""Random crops, evenly spaced windows, and streaming that visits every clip like clips in memory do."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from conftest import TINY, model_config

from vaelib.models import build
from vaelib.steps import window_codes
from vaelib.windows import Clips, StreamedClips, load_data


@pytest.fixture(scope="module")
def scaler(store):
    return store.fit_scaler()


@pytest.fixture(scope="module")
def clips(store, scaler):
    return Clips.read(store, scaler, store.rows("train"))


def counting(lengths=(16, 17, 30, 40)) -> Clips:
    """Clips whose every value is its frame number."""
    mel = torch.arange(max(lengths)).expand(len(lengths), 2, -1).half()
    return Clips(mel, torch.tensor(lengths), 16, np.arange(len(lengths)))


def test_clips_are_the_scaled_spectrograms(clips, store, scaler):
    assert len(clips) == 24 and clips.width == TINY.frames and clips.mel.dtype == torch.float16
    for i in (0, 9, 23):
        frames = int(clips.n_frames[i])
        want = store.spectrogram(store.rows("train")[i], scaler)
        assert want.shape[1] == frames and np.abs(clips.mel[i, :, :frames].numpy() - want).max() < 1e-3
    assert clips.mel.min() >= 0 and clips.mel.max() <= 1


def test_random_windows_lie_inside_and_reach_both_ends():
    torch.manual_seed(0)
    clips = counting()
    x = clips.random_windows(torch.arange(4).repeat(500))
    assert x.shape == (2000, 1, 2, 16) and x.dtype == torch.float32
    assert (x.diff(dim=3) == 1).all() and torch.equal(x[:, :, 0], x[:, :, 1])
    starts = x[:, 0, 0, 0].view(500, 4)
    assert starts.amin(0).tolist() == [0, 0, 0, 0] and starts.amax(0).tolist() == [0, 1, 14, 24]
    assert starts[:, 3].mean() == pytest.approx(12, abs=1)


def test_windows_of_one_clip_follow_each_other_and_the_seed_decides():
    clips = counting()
    clips.mel = clips.mel + 100 * torch.arange(4)[:, None, None]
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(clips.random_windows(torch.tensor([3, 2]), per_clip=3))
    assert (draws[0][:, 0, 0, 0] // 100).tolist() == [3, 3, 3, 2, 2, 2]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("n", "starts"), [(1, [12]), (2, [0, 24]), (4, [0, 8, 16, 24])])
def test_even_windows_go_from_the_first_to_the_last(n, starts):
    x = counting().even_windows(torch.tensor([3, 0]), n)
    assert x.shape == (2, n, 1, 2, 16) and x[0, :, 0, 0, 0].tolist() == starts
    assert (x[1, :, 0, 0, 0] == 0).all()


def test_windows_that_would_all_be_the_same_are_one(store):
    """Clips as long as a window have only one; whoever averages five of them does five times the work."""
    scaler, rows = store.fit_scaler(), store.rows("train")
    clips, streamed = Clips.read(store, scaler, rows), StreamedClips(store, scaler, rows)
    assert clips.distinct(5) == streamed.distinct(5) == 5
    clips.n_frames = torch.full_like(clips.n_frames, clips.width)
    assert clips.distinct(5) == 1
    alike = dataclasses.replace(store, table=store.table.assign(n_frames=store.front_end.frames))
    assert StreamedClips(alike, scaler, rows).distinct(5) == 1


def test_of_a_store_from_the_start_every_window_is_the_first(store, scaler, clips):
    first = dataclasses.replace(store, attrs=store.attrs | {"windows": "start"})
    rows = store.rows("train")
    found, streamed = Clips.read(first, scaler, rows), StreamedClips(first, scaler, rows, pool_clips=10)
    assert torch.equal(found.mel, clips.mel[..., : TINY.frames]) and found.n_frames.unique().tolist() == [TINY.frames]
    index = torch.arange(len(rows))
    wanted = clips.cut(index, torch.zeros_like(index))
    assert torch.equal(found.random_windows(index), wanted)
    assert torch.equal(found.even_windows(index, 3)[:, 2], wanted)
    assert found.distinct(5) == streamed.distinct(5) == 1
    assert all(torch.equal(x, wanted[i]) for x, i in streamed.batches(4))
    assert load_data(first, scaler, "", torch.device("cpu")).train.mel.shape[2] == TINY.frames


@pytest.mark.parametrize(("batch", "per_clip"), [(8, 1), (7, 2), (24, 1), (64, 1)])
def test_one_pass_visits_every_clip_in_full_batches(clips, batch, per_clip):
    torch.manual_seed(0)
    found = list(clips.batches(batch, per_clip))
    assert {(len(x), len(i)) for x, i in found} == {(batch * per_clip, batch)} and len(found) == -(-24 // batch)
    visited = torch.cat([i for _, i in found])
    assert sorted(visited[:24].tolist()) == list(range(24)) and visited[:24].tolist() != list(range(24))


def whose(clips, x) -> list[int]:
    """Which clip each window was cut from, found by looking for it."""
    views = clips.mel.float().unfold(2, clips.width, 1)  # (clip, mel, start, width)
    return [int((views - w[0][None, :, None]).abs().amax((1, 3)).amin(1).argmin()) for w in x]


@pytest.mark.parametrize("pool", [1000, 10, 5])
def test_streamed_clips_visit_each_clip_like_clips_do(store, scaler, clips, pool, monkeypatch):
    streamed = StreamedClips(store, scaler, store.rows("train"), pool_clips=pool)
    chunked(monkeypatch, store, 3)
    torch.manual_seed(0)
    found = list(streamed.batches(4))
    assert len(streamed) == len(clips) and all(x.shape == (4, 1, 16, 16) for x, _ in found)
    visited = torch.cat([i for _, i in found])
    assert set(visited.bincount(minlength=24).tolist()) <= {1, 2}
    assert whose(clips, torch.cat([x for x, _ in found])) == visited.tolist()
    again = torch.cat([i for _, i in streamed.batches(4)])
    assert set(again.tolist()) == set(range(24)) and again.tolist() != visited.tolist()


@pytest.mark.parametrize(("per_clip", "processes"), [(1, 2), (2, 4)])
def test_the_parts_of_all_processes_make_the_batches_of_one(store, scaler, clips, monkeypatch, per_clip, processes):
    chunked(monkeypatch, store, 3)
    for source in (clips, StreamedClips(store, scaler, store.rows("train"), pool_clips=10)):
        passes = []
        for share in [(0, 1), *((rank, processes) for rank in range(processes))]:
            torch.manual_seed(0)
            passes.append(list(source.batches(8, per_clip, share)))
        whole, *parts = passes
        for i, (x, index) in enumerate(whole):
            assert torch.equal(torch.cat([part[i][0] for part in parts]), x)
            assert torch.equal(torch.cat([part[i][1] for part in parts]), index)
            assert {len(part[i][1]) for part in parts} == {8 // processes}


def test_one_pool_is_in_memory_at_a_time(store, scaler, monkeypatch):
    chunked(monkeypatch, store, 3)
    real, alive = Clips.read, []

    def read(*args):
        assert not [pool for pool in alive if pool() is not None]
        clips = real(*args)
        alive.append(weakref.ref(clips))
        return clips

    monkeypatch.setattr(Clips, "read", read)
    streamed = StreamedClips(store, scaler, store.rows("train"), pool_clips=6)
    for _ in streamed.batches(4):
        pass
    read_by_batches = len(alive)
    window_codes(build(model_config("conv_vae")), streamed, 2)
    assert read_by_batches > 3 and len(alive) == read_by_batches + 4


def chunked(monkeypatch, store, clips_per_chunk):
    class Array:
        chunks, shape, oindex = (clips_per_chunk, 16, 81), store.log_mel.shape, store.log_mel.oindex

    monkeypatch.setitem(store.__dict__, "log_mel", Array())


def test_no_pool_is_too_small_for_batch_normalisation(store, scaler, monkeypatch):
    chunked(monkeypatch, store, 1)
    streamed = StreamedClips(store, scaler, store.rows("train")[:9], pool_clips=4)
    sizes = [len(p) for p in streamed._pools()]
    assert sum(sizes) == 9 and min(sizes) > 1
    assert [len(x) for x, _ in streamed.batches(8)] == [8, 8]
