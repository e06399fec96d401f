"""Models against PyTorch twins, and what every model must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from anchor_jax import UserError, models

NUM_CLASSES = 7


class TorchBlock(nn.Module):
    def __init__(self, channels, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.projects = stride != 1 or channels != features
        if self.projects:
            self.shortcut_conv = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(features)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.shortcut_bn(self.shortcut_conv(x)) if self.projects else x))


class TorchResNet18(nn.Module):
    """ResNet-18 as the released code has it: 3×3 stem, no max-pool."""

    def __init__(self, channels, width):
        super().__init__()
        self.stem_conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        before = width
        for stage in range(4):
            for block in range(2):
                features, stride = width * 2**stage, 2 if stage and not block else 1
                setattr(self, f"stage{stage + 1}_block{block + 1}", TorchBlock(before, features, stride))
                before = features
        self.head = nn.Linear(before, NUM_CLASSES)

    def forward(self, x):
        x = torch.relu(self.stem_bn(self.stem_conv(x)))
        for stage in range(4):
            for block in range(2):
                x = getattr(self, f"stage{stage + 1}_block{block + 1}")(x)
        return self.head(x.mean((2, 3)))


def copied(twin):
    """Variables of our model from a PyTorch twin."""
    variables = {"params": {}, "batch_stats": {}}

    def put(collection, module, leaf, tensor):
        node = variables[collection]
        for name in module.split("."):
            node = node.setdefault(name, {})
        node[leaf] = jnp.array(tensor.numpy())

    for name, tensor in twin.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        if leaf in ("running_mean", "running_var"):
            put("batch_stats", module, leaf.removeprefix("running_"), tensor)
        elif tensor.ndim == 4:
            put("params", module, "kernel", tensor.permute(2, 3, 1, 0))
        elif tensor.ndim == 2:
            put("params", module, "kernel", tensor.T)
        elif leaf != "num_batches_tracked":
            put("params", module, "scale" if leaf == "weight" else "bias", tensor)
    return variables


@pytest.fixture(scope="module")
def twins():
    torch.manual_seed(0)
    twin = TorchResNet18(channels=6, width=8)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    inputs = np.random.default_rng(0).normal(size=(5, 32, 32, 6)).astype(np.float32)
    return twin, models.create("resnet18", NUM_CLASSES, width=8), copied(twin), inputs


def test_resnet18_logits_are_those_of_pytorch(twins):
    twin, model, variables, inputs = twins
    with torch.no_grad():
        expected = twin.eval()(torch.tensor(inputs).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(jax.jit(model.apply)(variables, inputs), expected, rtol=1e-4, atol=1e-4)


def test_resnet18_normalises_by_the_batch_in_training_as_pytorch_does(twins):
    twin, model, variables, inputs = twins
    with torch.no_grad():
        expected = twin.train()(torch.tensor(inputs).permute(0, 3, 1, 2)).numpy()
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, updates = apply(variables, inputs)
    np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3)
    before, after = variables["batch_stats"]["stem_bn"], updates["batch_stats"]["stem_bn"]
    assert (after["mean"] != before["mean"]).all()
    np.testing.assert_allclose(after["mean"], twin.stem_bn.running_mean, rtol=1e-4, atol=1e-5)
    # PyTorch's running variance is the unbiased one, Flax's the biased
    count = inputs[..., 0].size
    biased = before["var"] * 0.9 + (twin.stem_bn.running_var.numpy() - before["var"] * 0.9) * (count - 1) / count
    np.testing.assert_allclose(after["var"], biased, rtol=1e-4, atol=1e-5)


def test_resnet18_has_the_parameters_of_the_released_network():
    model = models.create("resnet18", 10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 6)))
    # 11,173,962 of the CIFAR ResNet-18, and 64 more 3×3 kernels for each of 3 more channels
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 11_173_962 + 3 * 64 * 9


def test_initial_weights_are_spread_as_those_of_pytorch():
    ours = models.create("resnet18", NUM_CLASSES, width=16).init(jax.random.key(0), jnp.zeros((1, 8, 8, 6)))["params"]
    theirs = TorchResNet18(channels=6, width=16)
    for name in ("stem_conv", "head"):
        kernel = getattr(theirs, name).weight.detach()
        assert np.abs(ours[name]["kernel"]).max() == pytest.approx(float(kernel.abs().max()), rel=0.05)
        assert np.std(ours[name]["kernel"]) == pytest.approx(float(kernel.std()), rel=0.1)
    assert 0 < np.abs(ours["head"]["bias"]).max() <= (16 * 8) ** -0.5


MODELS = {"mlp": {"hidden": (8,)}, "resnet18": {"width": 4}}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def test_every_model_is_checked():
    assert MODELS.keys() == models.MODELS.keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_parameters_and_statistics_are_float32_whatever_is_computed_in(name, dtype):
    model = models.create(name, NUM_CLASSES, dtype=dtype, **MODELS[name])
    inputs = jnp.ones((2, 8, 8, 2))
    variables = model.init(jax.random.key(0), inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, intermediates = model.apply(variables, inputs, capture_intermediates=True, mutable="intermediates")
    assert logits.shape == (2, NUM_CLASSES)
    assert logits.dtype == jnp.float32
    computed_in = {leaf.dtype for leaf in jax.tree.leaves(intermediates)}
    assert jnp.dtype(dtype) in computed_in


def test_gradients_are_finite_and_reach_every_parameter(name):
    model = models.create(name, NUM_CLASSES, **MODELS[name])
    inputs = jax.random.normal(jax.random.key(1), (4, 8, 8, 2))
    variables = model.init(jax.random.key(0), inputs)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, inputs, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(logits))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"])):
        assert jnp.isfinite(gradient).all()
        assert (gradient != 0).any()


def test_evaluation_does_not_depend_on_neighbours(name):
    model = models.create(name, NUM_CLASSES, **MODELS[name])
    inputs = jax.random.normal(jax.random.key(1), (4, 8, 8, 2))
    variables = model.init(jax.random.key(0), inputs)
    np.testing.assert_allclose(
        model.apply(variables, inputs)[:1], model.apply(variables, inputs[:1]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("resnet19", 10, {}), "unknown model 'resnet19'; allowed: mlp, resnet18. Did you mean 'resnet18'?"),
        (("resnet18", 1, {}), "num_classes must be at least 2, got 1"),
        (("resnet18", 10, {"dtype": "float16"}), "unknown dtype 'float16'; allowed: bfloat16, float32"),
        (
            ("resnet18", 10, {"widht": 3}),
            "unknown option of model 'resnet18' 'widht'; .*Did you mean 'width'?",
        ),
        (("resnet18", 10, {"width": 0}), "option 'width' of model 'resnet18' must be of whole numbers, .* got 0"),
        (("mlp", 10, {"hidden": "abc"}), "option 'hidden' of model 'mlp' must be of whole numbers, .* got 'abc'"),
        (("mlp", 10, {"width": 3}), "unknown option of model 'mlp' 'width'; allowed: axis_name, hidden"),
    ],
)
def test_wrong_model_is_told_in_one_line(given, message):
    name, num_classes, options = given
    with pytest.raises(UserError, match=message):
        models.create(name, num_classes, **options)


def test_first_layer_is_linear_but_for_its_bias_and_the_rest_follows_it(name):
    model = models.create(name, NUM_CLASSES, **MODELS[name])
    one, other = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 2))
    variables = model.init(jax.random.key(0), one)

    def first_layer(inputs):
        return model.apply(variables, inputs, method="first_layer")

    assert_close = np.testing.assert_allclose
    together = first_layer(one) + first_layer(other) - first_layer(jnp.zeros_like(one))
    assert_close(together, first_layer(one + other), rtol=1e-4, atol=1e-5)
    assert_close(model.apply(variables, first_layer(one), method="rest"), model.apply(variables, one), rtol=1e-6)


def test_logits_are_linear_in_the_features(name):
    model = models.create(name, NUM_CLASSES, **MODELS[name])
    inputs = np.random.default_rng(0).normal(size=(4, 8, 8, 6)).astype(np.float32)
    variables = model.init(jax.random.key(0), inputs)
    features = model.apply(variables, model.apply(variables, inputs, method="first_layer"), method="features")
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.shape == (features.shape[1], NUM_CLASSES)]
    biases = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.shape == (NUM_CLASSES,)]
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features @ kernels[0] + biases[0], model.apply(variables, inputs), rtol=1e-4, atol=1e-5)
