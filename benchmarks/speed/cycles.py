"""Estimate parts of training on a TPU by its compiler, without a TPU; needs `jax[tpu]`.

    python -m benchmarks.speed.cycles --chip v5e --cases crop,attention --json f.json

XLA writes its estimate of the cycles into every operation of the program that it has compiled. The sum of these is not
a measurement. Loops are counted once, whatever their number of iterations, and reported.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import base
from anchor_jax.core.errors import unknown
from anchor_jax.data import augment, random_erasing
from anchor_jax.models.layers import FeedForward
from anchor_jax.models.vit import SelfAttention
from anchor_jax.planning.hlo import parse_module
from anchor_jax.runtime import topologies
from anchor_jax.runtime.mesh import replicated_shapes
from benchmarks.report import Result, report

TOPOLOGIES = {"v5e": "v5e:1x1", "v6e": "v6e:1x1", "v5p": "v5p:1x1x1"}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop": {"crop_padding": 4, "flip": True},
    "resized_crop": {"resized_crop": (0.08, 1.0), "flip": True},
    "trivial_augment": {"policy": "trivial_augment"},
    "rand_augment": {"policy": "rand_augment"},
    "pixmix": {"policy": "pixmix"},
    "erasing": {},
}
LAYERS = {"feed_forward": partial(FeedForward, 3072), "attention": partial(SelfAttention, 12)}
VIT = "vit_b16 of depth 2"

# what the compiler tells about a call of a program; copies only change a layout
UNITS = {"cycles": "cycles", "copies": "cycles", "loops": "loops", "temporaries": "bytes"}

CHIP = flags.DEFINE_enum("chip", "v5e", list(TOPOLOGIES), "Kind of TPU.")
CASES = flags.DEFINE_list("cases", [*AUGMENTATIONS, *LAYERS], f"Comma-separated; also '{VIT}'.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", 32, "Pixels per side, for augmentation.", lower_bound=8)
JSON = app.define_path("json", None, "Result file.", what="a new file")


def main() -> None:
    """Compile every case."""
    topologies.prepare()
    mesh = topologies.topology_mesh("tpu", TOPOLOGIES[CHIP.value], num_devices=1)
    results = []
    for name in CASES.value:
        if name not in (*AUGMENTATIONS, *LAYERS, VIT):
            raise unknown("case", name, [*AUGMENTATIONS, *LAYERS, VIT])
        cost = compile_for(mesh, *program(name, BATCH_SIZE.value, SIZE.value))
        case = f"{name}, batch {BATCH_SIZE.value}, {CHIP.value}"
        results += [Result(case, "anchor_jax", of, UNITS[of], [value]) for of, value in cost.items()]
    report("compiler's estimates, not measured", {"chip": CHIP.value}, results, JSON.value)


def program(name: str, batch_size: int, size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the function of a case, and the shapes of its arguments; of layers, with the gradient."""
    if name in AUGMENTATIONS:
        images = jax.ShapeDtypeStruct((batch_size, size, size, 3), np.uint8)
        larger = jax.ShapeDtypeStruct((64, size + size // 8, size + size // 8, 3), np.uint8)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
        return partial(_augment, AUGMENTATIONS[name]), (keys, images, larger)
    if name == VIT:
        model = models.create("vit_b16", 1000, dtype="bfloat16", depth=2)
        x = jax.ShapeDtypeStruct((batch_size, 224, 224, 6), np.float32)
    else:
        model = LAYERS[name](jnp.bfloat16)
        x = jax.ShapeDtypeStruct((batch_size, 197, 768), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x)

    def output_and_gradient(variables: Any, x: jax.Array) -> Any:
        if name == VIT:  # images need no gradient
            y, gradient_of = jax.vjp(lambda variables: model.apply(variables, x), variables)
        else:
            y, gradient_of = jax.vjp(model.apply, variables, x)
        return y, gradient_of(y)

    return output_and_gradient, (variables, x)


def _augment(options: dict[str, Any], keys: jax.Array, images: jax.Array, mixing_images: jax.Array) -> jax.Array:
    if not options:
        return random_erasing(keys, images.astype(jnp.float32), 0.25)
    config = base().augmentation
    config.update(options)
    return augment(keys, images, config, mixing_images)


def compile_for(mesh: Mesh, function: Callable[..., Any], shapes: Any) -> dict[str, int]:
    """Compile a function for a device that need not exist; return its cost by the names in `UNITS`."""
    compiled: Any = (
        jax.jit(function).trace(*replicated_shapes(shapes, mesh)).lower(lowering_platforms=("tpu",)).compile()
    )
    program = [one for computation in parse_module(compiled.as_text()).computations.values() for one in computation]
    cycles = {one.name: one.estimated_cycles or 0 for one in program}
    return {
        "cycles": sum(cycles.values()),
        "copies": sum(of for name, of in cycles.items() if name.startswith(("copy", "transpose"))),
        "loops": sum(one.opcode == "while" for one in program),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }


if __name__ == "__main__":
    app.run(main)
