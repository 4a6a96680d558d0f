"""Encoder and decoder blocks: exact sizes for odd inputs, orthogonal means."""

import pytest
import torch

from vaelib import nets


def test_sizes_of_the_full_spectrogram():
    assert nets.conv_sizes(1293) == [1293, 646, 323, 161, 80] and nets.conv_sizes(128) == [128, 64, 32, 16, 8]


@pytest.mark.parametrize("shape", [(16, 16), (17, 31), (20, 37), (128, 1293)])
def test_convolutions_have_these_sizes_and_go_back_exactly(shape):
    with torch.device("meta"):
        encoder, decoder, x = nets.ConvEncoder(shape), nets.ConvDecoder(8, shape), torch.empty(2, 1, *shape)
        z = torch.empty(2, 8)
    for i, layer in enumerate(m for m in encoder if isinstance(m, torch.nn.Conv2d)):
        x = layer(x)
        assert x.shape[2:] == tuple(nets.conv_sizes(s)[i + 1] for s in shape)
        assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
    assert x[0].shape == encoder.map_shape and x[0].numel() == encoder.features
    back = [z := layer(z) for layer in decoder][2:]  # after Linear, ReLU and Unflatten
    sizes = [tuple(nets.conv_sizes(s)[::-1][i] for s in shape) for i in range(5)]
    assert list(dict.fromkeys(tuple(b.shape[2:]) for b in back)) == sizes
    assert decoder(torch.empty(2, 8, device="meta")).shape == (2, 1, *shape)
    assert not any("Upsample" in type(m).__name__ for m in decoder.modules())


def test_an_input_too_small_for_four_halvings_is_refused():
    with pytest.raises(ValueError, match="size 15 is too small for 4 halvings"):
        nets.conv_sizes(15)


@pytest.mark.parametrize(("n", "distance"), [(5, 10.0), (8, 4.0), (2, 0.0)])
def test_fixed_means_are_orthogonal_and_equally_far_apart(n, distance):
    means = nets.orthogonal_means(n, 8, distance)
    gram = means @ means.T
    assert torch.allclose(gram, torch.eye(n) * distance**2 / 2, atol=1e-4)
    assert torch.allclose(torch.pdist(means), torch.tensor(float(distance)), atol=1e-4)
    assert torch.equal(means, nets.orthogonal_means(n, 8, distance))


def test_more_means_than_dimensions_are_refused():
    with pytest.raises(ValueError, match="9 orthogonal class means"):
        nets.orthogonal_means(9, 8, 1.0)


def test_log_variances_are_clamped():
    mean, logvar = nets.GaussianHeads(4, 3)(torch.full((2, 4), 1e6))
    assert mean.abs().max() > 1e3 and logvar.abs().max() <= 12
