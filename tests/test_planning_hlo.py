"""Tests of reading compiled programs: small ones in the form of those for TPUs and GPUs."""

import re
from pathlib import Path

import pytest

from anchor_jax.planning import hlo
from anchor_jax.planning.estimate import estimate
from anchor_jax.planning.kernels import kernel_flops
from anchor_jax.planning.paths import module_path
from anchor_jax.planning.targets import parse_target

FIXTURES = Path(__file__).parent / "fixtures/hlo"


def estimated(name, target, loops_over_steps):
    module = hlo.parse_module((FIXTURES / f"{name}.txt").read_text())
    return estimate(module, parse_target(target), loops_over_steps=loops_over_steps)


@pytest.mark.parametrize(
    ("shape", "num_bytes"),
    [
        ("f32[64,256]{1,0:T(8,128)}", 4 * 64 * 256),
        ("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=5*/u8[5]{0}, token[])", 17),
        ("s32[]", 4),
        ("f8e4m3fn[3]{0}", 3),
        ("s4[3]{0:E(4)}", 2),
        ("pred[0,4]{1,0}", 0),
    ],
)
def test_shapes_have_bytes(shape, num_bytes):
    assert sum(array.num_bytes for array in hlo.parse_arrays(shape)) == num_bytes


@pytest.mark.parametrize(
    ("op_name", "path"),
    [
        ("jit(steps)/while/body/closed_call/jvp(ResNet)/ResNet.rest/bn1/conv/dot", "ResNet/bn1/conv/dot"),
        ("jit(f)/transpose(jvp(ViT))/block1/mlp/fc1/dot_general", "gradient of ViT/block1/mlp/fc1/dot_general"),
        ("jit(steps)/while/body/vmap(jit(_where))/select_n", "select_n"),
        ("jit(steps)/while/body/eval_jaxpr/ResNet/ResNet.rest/bn1/mul", "ResNet/bn1/mul"),
        ("jit(f)/transpose(jvp(checkpoint))/rematted_computation/ViT/add", "gradient of ViT/add"),
        ("", ""),
    ],
)
def test_module_path_drops_what_tracing_adds(op_name, path):
    assert module_path(op_name) == path


def test_tpu_program_counts_cycles_of_one_step():
    found = estimated("tpu_loop", "v5e:2x2", loops_over_steps=True)
    assert found.cycles == 1_500_000 + 2_000_000 + 50_000 + 512 * 100 + 3_000
    reversed_images, counter = 2 * 512 * 32 * 32 * 3, 8  # without an estimate
    assert found.unestimated == pytest.approx((reversed_images + counter + 512 * 12) / 819e9)
    assert found.seconds == pytest.approx(found.cycles / 1.5e9 + found.unestimated)
    assert found.call_seconds == pytest.approx(750_000 / 1.5e9)
    assert found.copies == pytest.approx((50_000 + 512 * 100) / 1.5e9 + counter / 819e9)


def test_tpu_program_lists_operations_loops_and_collectives():
    found = estimated("tpu_loop", "v5e:2x2", loops_over_steps=True)
    assert [one.path for one in found.costliest[:3]] == [
        "gradient of ResNet/conv1/conv_general_dilated",
        "ResNet/conv1/conv_general_dilated",
        "gather",
    ]
    assert found.costliest[2].times == 512
    assert [(module_path(loop.op_name), loop.trips, loop.times) for loop in found.loops] == [("gather", 512, 1)]
    ((kind, count, num_bytes, seconds),) = found.collectives
    assert (kind, count, num_bytes) == ("all-reduce", 1, 4 * 64 * 256)
    assert seconds == pytest.approx(1.5 * num_bytes / 200e9)


def test_tpu_program_counts_collectives_in_fusions_once():
    found = estimated("tpu_async", "v5e:2x2", loops_over_steps=False)
    gathered, shard = 2 * 3072 * 768, 4 * 256 * 768
    gather, scatter = found.collectives
    assert gather[:3] == ("all-gather", 1, gathered)
    assert gather.seconds == pytest.approx(3 / 4 * gathered / 200e9)
    assert scatter[:3] == ("reduce-scatter", 2, 2 * shard)
    assert scatter.seconds == pytest.approx(2 * 3 * shard / 200e9)
    # only the computation next to the collective takes time besides
    assert (found.cycles, found.unestimated) == (41_865, 0)
    assert found.seconds == pytest.approx(41_865 / 1.5e9)


def test_program_without_a_loop_over_steps_is_one_step():
    found = estimated("tpu_loop", "v5e:2x2", loops_over_steps=False)
    assert found.call_seconds == 0
    assert [loop.trips for loop in found.loops] == [None, 512]


@pytest.mark.parametrize(
    ("start", "limit", "step", "direction", "trips"),
    [(2, 17, 3, "LT", 5), (6, 0, -1, "GT", 6), (5, 5, 1, "LT", 0), (0, 5, 1, "NE", None), (0, 5, 0, "LT", None)],
)
def test_loops_without_a_stated_length_are_counted(start, limit, step, direction, trips):
    text = (FIXTURES / "tpu_loop.txt").read_text().replace("1335), direction=LT", f"1335), direction={direction}")
    for name, value in {"%constant.30": start, "%constant.1335": limit, "%constant.1": step}.items():
        text = re.sub(rf"({name} = .* constant)\(\d+\)", rf"\1({value})", text)
    found = estimate(hlo.parse_module(text), parse_target("v5e:2x2"), loops_over_steps=True)
    assert [loop.trips for loop in found.loops] == [trips]
    assert found.cycles == 1_500_000 + 2_000_000 + 50_000 + (1 if trips is None else trips) * 100 + 3_000


def program(*instructions):
    return hlo.parse_module("\n  ".join(["ENTRY %main () -> f32[] {", *instructions]) + "\n}")


@pytest.mark.parametrize(
    ("shape", "opcode", "groups", "sent"),
    [
        ("f32[1024]", "all-reduce", "{{0,1},{2,3},{4,5},{6,7}}", 1),
        ("f32[1024]", "all-reduce", "[2,4]<=[8]", 1.5),
        ("f32[1024]", "all-reduce", "{}", 1.75),
        ("f32[1024]", "all-reduce", "mesh['a'=2,'b'=4] {'b'}", 1.5),
        ("f32[1024]", "all-reduce-start", "mesh['data'=8] {'data'}", 1.75),
        ("((f32[1024]), f32[1024])", "all-reduce-start", "{}", 1.75),
        ("((f32[512]), f32[1024])", "all-gather-start", "{{0,1},{2,3},{4,5},{6,7}}", 0.5),
    ],
)
def test_collectives_send_their_results_within_their_groups(shape, opcode, groups, sent):
    module = program("%x = f32[512] parameter(0)", f"ROOT %all = {shape} {opcode}(%x), replica_groups={groups}")
    (found,) = estimate(module, parse_target("h200:8"), loops_over_steps=False).collectives
    assert (found.num_bytes, found.seconds) == (4096, pytest.approx(sent * 4096 / 450e9))


def test_kernel_that_changes_an_updated_array_moves_all_of_it():
    root, array = "ROOT %dynamic-update-slice.2 =", "f32[100,1024]{1,0}"
    text = (FIXTURES / "gpu_step.txt").read_text().replace(root, f"ROOT %n = {array} negate(%u)\n  %u =")
    found = estimate(hlo.parse_module(text), parse_target("h200:1"), loops_over_steps=False)
    assert found.moved == sum(BYTES.values()) - BYTES["update"] + 2 * 4 * 100 * 1024 + 4 * 1024 + 4


def test_gradient_of_a_strided_convolution_computes_as_much_as_it():
    shapes = "%y = f32[2,4,4,6] parameter(0)", "%kernel = f32[3,3,4,6] parameter(1)"
    window = "window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2}, dim_labels=b01f_01oi->b01f"
    module = program(*shapes, f"ROOT %c = f32[2,8,8,4] convolution(%y, %kernel), {window}")
    main = module.computations["main"]
    assert kernel_flops(main.root, main, module) == (2 * 2 * 4 * 4 * 9 * 4 * 6, "float32")


def test_parse_module_rejects_other_text():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse_module("module @jit_f { }")


IMAGES, KERNEL, MATRIX = 512 * 32 * 32, 64 * 9 * 64, 512 * 1024
BYTES = {
    "gather": IMAGES * 3 * 3 + 512 * 4,  # uint8 read, bfloat16 written
    "forward": 2 * (2 * IMAGES * 64 + KERNEL),
    "backward, kernel": 2 * (2 * IMAGES * 64 + KERNEL),
    "backward, input": 2 * (2 * IMAGES * 64 + KERNEL),
    "product": 2 * (2 * MATRIX + 1024 * 1024),
    "product in a command buffer": 2 * (2 * MATRIX + 1024 * 1024),
    "update": 4 * 2 * 1024 + 4,  # in place: one row
    "copy": 2 * 2 * MATRIX,
}


def test_gpu_program_counts_the_bytes_of_its_kernels():
    found = estimated("gpu_step", "h200:1", loops_over_steps=False)
    assert found.kernels == len(BYTES)
    assert found.moved == sum(BYTES.values())
    assert found.cycles is None


def test_gpu_program_is_as_slow_as_bandwidth_or_products():
    found = estimated("gpu_step", "h200:1", loops_over_steps=False)
    convolution, product = 2 * KERNEL * IMAGES / 989.4e12, 2 * MATRIX * 1024 / 989.4e12
    moving = {name: num_bytes / 4.8e12 for name, num_bytes in BYTES.items()}
    bounds = {"forward": convolution, "backward, kernel": convolution, "backward, input": convolution}
    bounds |= {"product": product, "product in a command buffer": product}
    assert found.seconds == pytest.approx(sum(max(moving[name], bounds.get(name, 0)) for name in BYTES))
    assert found.copies == pytest.approx(moving["copy"])
    assert found.costliest[0].path == "gradient of ResNet/conv1/conv_general_dilated"
    assert found.costliest[0].times == 2
