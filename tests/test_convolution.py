"""Convolution and pooling: held to sums written out in loops, to torch where it is installed, and to closed-form facts."""

import itertools
import pickle

import numpy as np
import pytest
from capturing import BACKENDS, assert_replays, compiled_steps  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.nn import functional as F
from tinygrad_scratch.optim import SGD
from tinygrad_scratch.testing import check_grad


def convolved(x, w, stride, before, after, dilation, groups):
    """Cross-correlation, as its definition says it: one element after the other."""
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    count, inner = len(x), w.shape[1]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    y = np.zeros((count, len(w), *out))
    for n, o, p, q in np.ndindex(*y.shape):
        first = o // (len(w) // groups) * inner
        rows = slice(p * stride[0], p * stride[0] + reach[0], dilation[0])
        columns = slice(q * stride[1], q * stride[1] + reach[1], dilation[1])
        y[n, o, p, q] = np.sum(x[n, first : first + inner, rows, columns] * w[o])
    return y


@st.composite
def convolutions(draw):
    """(x shape, weight shape, stride, padding, dilation, groups) that go together."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    groups, inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [n + draw(st.integers(0, 3)) for n in least]
    x = (draw(st.integers(0, 3)), inner * groups, *size)
    return x, (outer * groups, inner, *kernel), stride, padding, dilation, groups


@given(convolutions())
def test_conv2d_is_its_definition(drawn):
    x_shape, w_shape, stride, padding, dilation, groups = drawn
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=x_shape), rng.normal(size=w_shape), rng.normal(size=w_shape[0])
    expected = convolved(x, w, stride, padding, padding, dilation, groups)
    np.testing.assert_allclose(F.conv2d(x, w, None, stride, padding, dilation, groups), expected, atol=1e-12)
    with_bias = F.conv2d(tg.Tensor(x), w, b, stride, padding, dilation, groups)
    np.testing.assert_allclose(with_bias.numpy(), expected + b[:, None, None], atol=1e-12)


@given(convolutions())
def test_its_three_parts_are_one_trilinear_form(drawn):
    x_shape, w_shape, stride, padding, dilation, groups = drawn
    rng, how = np.random.default_rng(0), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
    y = tg.conv2d(x, w, **how)
    g = rng.normal(size=y.shape)
    form = np.vdot(g, y)
    assert np.vdot(x, tg.conv2d_input(g, w, size=x.shape[2:], **how)) == pytest.approx(form, abs=1e-9)
    assert np.vdot(w, tg.conv2d_weight(g, x, kernel_size=w.shape[2:], **how)) == pytest.approx(form, abs=1e-9)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (2, 1), ((4, 1), 1), (2, 3), ((5, 2), (1, 2))])
def test_same_keeps_the_size_and_valid_adds_nothing(kernel, dilation):
    rng = np.random.default_rng(0)
    kernel_size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    x, w = rng.normal(size=(2, 1, 7, 8)), rng.normal(size=(1, 1, *kernel_size))
    y = F.conv2d(x, w, padding="same", dilation=dilation)
    assert y.shape == x.shape
    dilations = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    total = [d * (k - 1) for d, k in zip(dilations, kernel_size, strict=True)]
    expected = convolved(x, w, (1, 1), [t // 2 for t in total], [t - t // 2 for t in total], dilations, 1)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_array_equal(F.conv2d(x, w, padding="valid"), F.conv2d(x, w))


def test_one_image_is_a_batch_of_one():
    x, w = np.random.default_rng(0).normal(size=(2, 5, 6)), np.ones((3, 2, 2, 2))
    np.testing.assert_array_equal(F.conv2d(x, w, np.ones(3)), F.conv2d(x[None], w, np.ones(3))[0])


def test_a_kernel_of_one_is_a_product_of_matrices():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(6, 4, 1, 1))
    np.testing.assert_allclose(F.conv2d(x, w), np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0]), atol=1e-12)


def test_images_of_any_number_are_taken_a_few_at_a_time(monkeypatch):
    from tinygrad_scratch.ops import convolution

    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(7, 2, 5, 5)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(7, 3, 3, 3))
    whole = tg.conv2d(x, w), tg.conv2d_input(g, w, size=(5, 5)), tg.conv2d_weight(g, x, kernel_size=(3, 3))
    for size in (1, 3000):  # bytes: one image at a time, then two
        monkeypatch.setattr(convolution, "_CHUNK", size)
        parts = tg.conv2d(x, w), tg.conv2d_input(g, w, size=(5, 5)), tg.conv2d_weight(g, x, kernel_size=(3, 3))
        for a, b in zip(parts, whole, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


# -- pooling -----------------------------------------------------------------------------------------------------------

POOLS = [{}, {"stride": 1}, {"stride": (3, 1), "padding": 1}, {"padding": (1, 0)}]


@pytest.mark.parametrize("kernel", [2, 3, (2, 3)])
@pytest.mark.parametrize("options", POOLS)
def test_pools_are_their_definition(kernel, options):
    x = np.random.default_rng(0).normal(size=(2, 2, 7, 8)) - 3  # negative, so that padding with zeros would be seen
    k = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    s, p = options.get("stride", k), options.get("padding", 0)
    s, p = s if isinstance(s, tuple) else (s, s), p if isinstance(p, tuple) else (p, p)
    padded = np.pad(x, [(0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])], constant_values=np.nan)
    out = [(n - a) // b + 1 for n, a, b in zip(padded.shape[2:], k, s, strict=True)]
    cut = [padded[..., i * s[0] : i * s[0] + k[0], j * s[1] : j * s[1] + k[1]] for i, j in np.ndindex(*out)]
    most, mean, partial = (
        np.stack(list(map(f, cut)), axis=-1).reshape(2, 2, *out)
        for f in (
            lambda c: np.nanmax(c, axis=(-2, -1)),
            lambda c: np.nansum(c, axis=(-2, -1)) / (k[0] * k[1]),
            lambda c: np.nanmean(c, axis=(-2, -1)),
        )
    )
    np.testing.assert_array_equal(F.max_pool2d(x, kernel, **options), most)
    np.testing.assert_allclose(F.avg_pool2d(x, kernel, **options), mean, atol=1e-12)
    np.testing.assert_allclose(F.avg_pool2d(x, kernel, **options, count_include_pad=False), partial, atol=1e-12)
    check_grad(lambda t: F.avg_pool2d(t, kernel, **options, count_include_pad=False), x, order=2)


def test_a_tie_of_max_pool2d_is_shared_evenly():
    x = tg.Tensor(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 2.0]])[None, None], requires_grad=True)
    F.max_pool2d(x, (2, 3), stride=1).sum().backward()
    assert x.grad.tolist() == [[[[0, 0, 0], [0, 0, 1]]]]
    x.zero_grad()
    F.max_pool2d(x, 2, stride=1).backward(np.array([[[[3.0, 5.0]]]]))
    assert x.grad.tolist() == [[[[1, 1, 0], [1, 0, 5]]]]


def test_images_of_integers_are_pooled():
    x = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    assert F.max_pool2d(x, 2, padding=1).tolist() == [[-8, -6, -5], [0, 2, 3], [4, 6, 7]]


# -- layers ------------------------------------------------------------------------------------------------------------


def test_layers_show_their_settings():
    assert repr(nn.Conv2d(3, 8, 5)) == "Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))"
    layer = nn.Conv2d(4, 8, 3, 2, (1, 0), 2, 2, bias=False)
    assert "padding=(1, 0), dilation=(2, 2), groups=2, bias=False" in repr(layer)
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert repr(nn.AvgPool2d(3, 2, 1)) == "AvgPool2d(kernel_size=3, stride=2, padding=1)"


def test_weights_are_drawn_from_the_seed_within_torchs_bound():
    layer, again = nn.Conv2d(4, 50, (3, 5), groups=2, rng=3), nn.Conv2d(4, 50, (3, 5), groups=2, rng=3)
    assert layer.weight.shape == (50, 2, 3, 5)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    bound = 1 / np.sqrt(2 * 3 * 5)
    for a, b in ((layer.weight, again.weight), (layer.bias, again.bias)):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert 0.8 * bound < np.abs(a.numpy()).max() <= bound
    assert np.std(layer.weight.numpy()) == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert nn.Conv2d(1, 1, 1, bias=False).bias is None
    assert nn.Conv2d(1, 1, 1, dtype=np.float64).weight.dtype == np.float64


BAD_CALLS = {
    "kernel reaches over 5 x 5 pixels, more than the padded input's 4 x 3": lambda: nn.Conv2d(1, 2, 5)(
        np.ones((2, 1, 4, 3))
    ),
    "the input has 2 channels": lambda: nn.Conv2d(3, 2, 3)(np.ones((2, 2, 4, 4))),
    r"use x\[:, None\]": lambda: nn.Conv2d(3, 2, 3)(np.ones((4, 4))),
    "groups must divide": lambda: nn.Conv2d(3, 4, 3, groups=2),
    "must divide the 3 channels": lambda: F.conv2d(np.ones((1, 3, 4, 4)), np.ones((2, 1, 3, 3)), groups=2),
    "padding is 'full'; it must be 'same', 'valid'": lambda: nn.Conv2d(1, 1, 3, padding="full"),
    "padding is 'full': it must be 'same', 'valid'": lambda: F.conv2d(
        np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), padding="full"
    ),
    "needs stride 1": lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same"),
    "'same' needs stride 1": lambda: F.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), stride=2, padding="same"),
    "padding is -1": lambda: F.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), padding=-1),
    "at least 1": lambda: nn.Conv2d(0, 1, 3),
    "stride is .0, 0.: it must be at least 1": lambda: F.max_pool2d(np.ones((4, 4)), 2, stride=0),
    "more than half of the kernel": lambda: F.max_pool2d(np.ones((4, 4)), 2, padding=2),
    r"has shape .N, 1, 10, 10., not .1, 1, 2, 2.": lambda: tg.conv2d_input(
        np.zeros((1, 1, 2, 2)), np.ones((1, 1, 3, 3)), size=(8, 8), padding=2
    ),
    r"has shape .N, 1, 3, 3., not .1, 1, 1, 1.": lambda: tg.conv2d_input(
        np.ones((1, 1, 1, 1)), np.ones((1, 1, 3, 3)), size=(8, 8), stride=2
    ),
    "bias has shape": lambda: F.conv2d(np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3)), np.ones(3)),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_input_is_refused_with_the_fix(message):
    with pytest.raises(ValueError, match=message):
        BAD_CALLS[message]()


@pytest.mark.parametrize("value", ["3", 2.5, (1, 2, 3), None])
def test_sizes_are_whole_numbers(value):
    with pytest.raises(TypeError, match="whole number"):
        nn.Conv2d(1, 1, value)


def test_the_message_names_the_layer():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 7)))
    with pytest.raises(ValueError, match="kernel reaches over") as caught:
        model(tg.Tensor(np.ones((1, 1, 8, 8), np.float32)))
    assert any("in layer 1.1: Conv2d(4, 4, kernel_size=(7, 7)" in note for note in caught.value.__notes__)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


# -- a network ---------------------------------------------------------------------------------------------------------


def network(kind=nn, **rng):
    """Convolution with everything switched on, and pools of both kinds."""
    return kind.Sequential(
        kind.Conv2d(2, 6, 3, padding=1, **rng),
        kind.ReLU(),
        kind.MaxPool2d(2),
        kind.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1), groups=2, bias=False, **rng),
        kind.Tanh(),
        kind.Conv2d(4, 4, 3, padding="same", **rng),
        kind.AvgPool2d(2, stride=1, padding=1),
        kind.Flatten(),
        kind.Linear(60, 3, **rng),
    )


def data(dtype=np.float32, steps=20):
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(5, 2, 8, 8)).astype(dtype), rng.integers(0, 3, 5)) for _ in range(steps)]


def test_twenty_steps_are_torchs():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    mine, theirs = network(rng=0), network(torch.nn)
    theirs.load_state_dict({name: torch.from_numpy(values) for name, values in mine.state_dict().items()})
    one, other = (
        SGD(mine.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9),
    )
    for x, labels in data():
        loss, expected = (
            F.cross_entropy(mine(x), labels),
            torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels)),
        )
        assert float(loss) == pytest.approx(expected.item(), rel=1e-4)
        for optimizer, value in ((one, loss), (other, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for name, values in mine.state_dict().items():
        np.testing.assert_allclose(values, theirs.state_dict()[name].numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


@given(convolutions())
def test_gradients_are_torchs(drawn):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x_shape, w_shape, *how = drawn
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape) for shape in (x_shape, w_shape, w_shape[:1])]
    mine = [tg.Tensor(v, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    y, expected = F.conv2d(*mine, *how), torch.nn.functional.conv2d(*theirs, *how)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=1e-12)
    np.sum(np.sin(y)).backward()
    torch.sin(expected).sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-11)


def test_layers_are_drawn_and_shown_as_torchs():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for line, other in zip(repr(network(rng=0)).splitlines(), repr(network(torch.nn)).splitlines(), strict=True):
        assert line == other
    assert {n: v.shape for n, v in network(rng=0).state_dict().items()} == {
        n: tuple(v.shape) for n, v in network(torch.nn).state_dict().items()
    }


@pytest.mark.parametrize(("kernel", "options"), list(itertools.product([2, (3, 2)], POOLS)))
def test_pools_are_torchs(kernel, options):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    for name in ("max_pool2d", "avg_pool2d"):
        mine, theirs = tg.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y = getattr(F, name)(mine, kernel, **options)
        expected = getattr(torch.nn.functional, name)(theirs, kernel, **options)
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=1e-12)
        np.sum(np.sin(y)).backward()
        torch.sin(expected).sum().backward()
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-12)


# -- captured ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_captured_step_is_the_eager_one(backend):
    """The network trained twice: bias and ReLU taken along, groups, strides, both pools, images that lie in another order."""
    rng, models = np.random.default_rng(0), [network(rng=0), network(rng=0)]
    optimizers = [SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]

    def step(model, optimizer, images, labels):
        loss = F.cross_entropy(model(np.transpose(tg.as_tensor(images), (0, 3, 1, 2))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    captured = tg.capture(lambda *batch: step(models[0], optimizers[0], *batch), backend=backend)
    for _ in range(5):
        batch = rng.normal(size=(5, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, 5)
        assert float(captured(*batch)) == pytest.approx(float(step(models[1], optimizers[1], *batch)), rel=1e-4)
    assert not captured.plan.fallback
    for name, values in models[0].state_dict().items():
        np.testing.assert_allclose(values, models[1].state_dict()[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels_of_one_and_answers_that_others_read_too(backend):
    """1 x 1 kernels need no copies; a convolution whose answer, or that plus its bias, is wanted itself takes nothing along."""
    rng = np.random.default_rng(0)

    def step(x, w, b):
        x, w, b = (tg.as_tensor(v).detach().requires_grad_() for v in (x, w, b))
        y = tg.conv2d(x, w, groups=2)
        z = y + b.reshape(-1, 1, 1)
        active = tg.relu(z)
        again = tg.relu(F.conv2d(active, w[:, :, :, :], b, groups=2) - 0.5)
        return y, z, active, again, *tg.gradients(np.sum(again * again) + np.sum(y), [x, w, b])

    def draw():
        return rng.normal(size=(3, 4, 3, 3)), rng.normal(size=(4, 2, 1, 1)), rng.normal(size=4)

    assert not assert_replays(step, draw, backend, rewrites=True, tolerance=1e-9).plan.fallback
