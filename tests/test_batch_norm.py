"""BatchNorm: its communication, and statistics of groups that do not depend on the number of devices."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from tiny_models import ONE_PER_FAMILY, TINY, assert_close, normal, on_host
from train_steps import CLASSES, lower_step, run_steps

from anchor_jax import UserError, models
from anchor_jax import config as configuration
from anchor_jax.models.layers import Classifier, Dropout, batch_norm
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.batch_norm import apply_in_groups, groups_share_masks
from anchor_jax.training.loop import prepare
from anchor_jax.training.schedule import make_schedule
from anchor_jax.training.summary import run_summary

WITH_BATCH_NORM = [
    case for case in ONE_PER_FAMILY.values() if TINY[case][0].startswith(("resnet", "wrn", "regnet", "fastnet"))
]


@pytest.fixture
def small(tiny):
    """A config of plain gradient descent, without augmentation."""
    tiny.augmentation.crop_padding, tiny.augmentation.flip = 0, False
    tiny.optimizer.momentum, tiny.optimizer.weight_decay = 0.0, 0.0
    tiny.anchoring.references = "batch"
    return tiny


class Norm(Classifier):
    """A single layer of BatchNorm."""

    @nn.compact
    def __call__(self, inputs, train=False):
        return batch_norm(self.dtype, self.axis_name, self.bn_devices, train)()(inputs)


class Dense(Classifier):
    """Dense layers with BatchNorm, which compile faster than convolutions."""

    depth: int = 1
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs, train=False):
        norm = batch_norm(self.dtype, self.axis_name, self.bn_devices, train)
        x = inputs.reshape(len(inputs), -1)
        for layer in range(self.depth):
            x = nn.relu(norm(name=f"bn{layer}")(nn.Dense(8)(x)))
            x = Dropout(self.dropout_rate, self.axis_name)(x)
        return nn.Dense(self.num_classes, name="head")(x)


DENSE = Dense(CLASSES, axis_name=mesh_lib.AXIS)


def in_groups(model, size, num_devices):
    """Map a function over devices: outputs, gradients of their weighted sum, and new running statistics."""

    def on_device(variables, inputs, weights, mask):
        def loss(params, inputs):
            outputs, sums = apply_in_groups(model, size, {**variables, "params": params}, inputs, mask)
            return jnp.sum(outputs * weights), (outputs, sums)

        (of_params, of_inputs), (outputs, sums) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], inputs)
        of_params, sums = jax.lax.psum((of_params, sums), mesh_lib.AXIS)
        return outputs, of_inputs, of_params, sums.mean(variables["batch_stats"])

    sharded, replicated = mesh_lib.SHARDED, mesh_lib.REPLICATED
    return mesh_lib.pmapped(
        on_device,
        mesh_lib.mesh(num_devices),
        in_specs=(replicated, sharded, sharded, sharded),
        out_specs=(sharded, sharded, replicated, replicated),
    )


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_groups_match_batch_norm_of_pytorch(num_devices):
    """With two examples on a device, a group of four lies on two devices."""
    torch = pytest.importorskip("torch")
    inputs, weights = 2 + normal(0, 16, 3, 5, 6), normal(1, 16, 3, 5, 6)
    params = {"scale": normal(2, 6), "bias": normal(3, 6)}
    before = {"mean": normal(4, 6), "var": 1 + normal(5, 6) ** 2}
    variables = {"params": {"BatchNorm_0": params}, "batch_stats": {"BatchNorm_0": before}}
    masked_groups, num = [1], 4 * 3 * 5
    mask = np.isin(np.arange(16) // 4, masked_groups)
    run = on_host(in_groups(Norm(2, axis_name=mesh_lib.AXIS), 4, num_devices))
    outputs, of_inputs, of_params, statistics = run(variables, inputs, weights, mask)

    old = {
        "weight": params["scale"],
        "bias": params["bias"],
        "running_mean": before["mean"],
        "running_var": before["var"],
    }
    layers = []
    for rows in np.split(np.arange(16), 4):
        layer = torch.nn.BatchNorm2d(6)
        layer.load_state_dict({name: torch.tensor(array) for name, array in old.items()}, strict=False)
        x = torch.tensor(inputs[rows].transpose(0, 3, 1, 2), requires_grad=True)
        y = layer(x)
        torch.sum(y * torch.tensor(weights[rows].transpose(0, 3, 1, 2))).backward()
        assert_close(outputs[rows], y.detach().numpy().transpose(0, 2, 3, 1))
        assert_close(of_inputs[rows], x.grad.numpy().transpose(0, 2, 3, 1))
        layers.append(layer)
    theirs = {"scale": sum(layer.weight.grad for layer in layers), "bias": sum(layer.bias.grad for layer in layers)}
    assert_close(of_params["BatchNorm_0"], jax.tree.map(np.asarray, theirs), atol=1e-4)
    kept = [layer for group, layer in enumerate(layers) if group not in masked_groups]
    mean, variance = (
        np.mean([getattr(layer, name) for layer in kept], axis=0) for name in ("running_mean", "running_var")
    )
    biased = 0.9 * before["var"] + (variance - 0.9 * before["var"]) * (num - 1) / num  # as Flax's
    assert_close(statistics["BatchNorm_0"], {"mean": mean, "var": biased})


@pytest.mark.parametrize("case", WITH_BATCH_NORM)
def test_groups_of_all_models_need_no_communication(case):
    name, options, side = TINY[case]
    model = models.create(name, CLASSES, axis_name=mesh_lib.AXIS, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((2, side, side, 6), np.float32))
    mapped = mesh_lib.pmapped(
        lambda variables, inputs: apply_in_groups(model, 2, variables, inputs, None),
        mesh_lib.mesh(2),
        in_specs=(mesh_lib.REPLICATED, mesh_lib.SHARDED),
        out_specs=(mesh_lib.SHARDED, mesh_lib.REPLICATED),
    )
    traced = {size: str(mapped.trace(variables, normal(6, size, side, side, 6)).jaxpr) for size in (8, 2)}
    assert "psum" not in traced[8]
    assert "psum" in traced[2]  # a group lies on two devices


def test_groups_make_the_same_steps_on_all_devices(small):
    """Also with accumulation; with two examples on a device, a group of four lies on two devices."""
    small.anchoring.update({"mask_per": "group", "group_size": 4})
    small.training.bn_group_size = 4
    states, totals, _ = run_steps(small, 3, model=DENSE)
    assert 0 < totals.masked_examples < totals.examples
    assert (states[-1].batch_stats["bn0"]["var"] != states[0].batch_stats["bn0"]["var"]).all()
    for num_devices, parts, where in ((8, 1, "replicated"), (2, 2, "fsdp")):
        small.training.update({"accumulation_steps": parts, "sharding": where})
        others, other_totals, _ = run_steps(small, 3, num_devices, model=DENSE)
        assert_close((others[-1], other_totals), (states[-1], totals), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"mask_per": "batch"}, True),
        ({"mask_per": "group", "enabled": False, "overlay_weight": -1.0}, True),
        ({"mask_per": "group", "update_bn_when_masked": True}, False),
    ],
)
def test_masked_groups_update_statistics_only_if_configured(small, changes, kept):
    small.training.bn_group_size = 8
    small.anchoring.update({"group_size": 16, "mask_prob": 0.999} | changes)  # all are masked
    (before, after), _, _ = run_steps(small, 1, model=DENSE)
    assert (before.params["head"]["kernel"] != after.params["head"]["kernel"]).any()
    unchanged = jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats)
    assert set(jax.tree.leaves(unchanged)) == {kept}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, "batch", 0), False),
        ((4, "batch", 0), True),
        ((4, "group", 8), True),
        ((8, "group", 4), False),
        ((2, "example", 8), False),
    ],
)
def test_groups_share_masks_if_they_divide_what_is_masked(arguments, expected):
    assert groups_share_masks(*arguments) == expected


# communication


@pytest.mark.parametrize(("group_size", "most"), [(2, 3), (0, 2 * 3 + 3)])
def test_batch_norm_needs_few_all_reduces(small, group_size, most):
    """The statistics of groups share the message of the gradients."""
    small.training.bn_group_size = group_size
    program = lower_step(small, num_devices=8, model=DENSE.clone(depth=3)).compile().as_text()
    found = len(re.findall(r" all-reduce(?:-start)?\(", program))
    assert 1 <= found <= most
    assert (found > 3) == (group_size == 0)


# errors


def test_group_size_must_divide_the_batch():
    config = configuration.base()
    config.training.bn_group_size = 48
    with pytest.raises(UserError, match=r"bn_group_size must be 0 or divide training.batch_size=128; got 48"):
        configuration.validate(config)


@pytest.mark.parametrize(
    ("num_devices", "parts", "group_size", "message"),
    [
        (4, 1, 4, "must divide 6, the number of images on a device, or be a multiple of it; got 4, try 2"),
        (2, 2, 12, r"must divide 6, .* on a device in each of the 2 accumulation_steps; got 12, try 6"),
        (4, 1, 3, ""),
        (4, 1, 12, ""),
        (2, 2, 3, ""),
    ],
)
def test_group_size_must_fit_the_devices(small, num_devices, parts, group_size, message):
    small.training.update({"batch_size": 24, "accumulation_steps": parts, "bn_group_size": group_size})
    configuration.validate(small)
    if not message:
        assert make_schedule(small, 96, num_devices)
        return
    with pytest.raises(UserError, match=f"config.training.bn_group_size {message}"):
        make_schedule(small, 96, num_devices)


def test_groups_need_a_model_with_batch_norm(tiny, tmp_path):
    tiny.training.bn_group_size = 2
    with pytest.raises(UserError, match=r"bn_group_size must be 0 for a model without BatchNorm, such as 'mlp'; got 2"):
        prepare(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_summary_says_what_is_normalized_together(small, tmp_path):
    small.training.bn_group_size = 8
    small.model.name, small.model.options = "resnet18", ConfigDict({"stage_sizes": (1,), "width": 4})
    start = SimpleNamespace(params={}, step=0)
    assert "float32, BatchNorm over groups of 8 images\n" in run_summary(prepare(small, tmp_path / "run"), start)
