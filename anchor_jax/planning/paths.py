"""Names for the operations of a compiled program: the module, or the part of the step, that they come from."""

import re

# parts of JAX's names that say how a program was traced, not what it computes
_TRACING = re.compile(
    r"^(jit|pjit|jit_\w+|xla_call|shmap_body|shard_map|closed_call|core_call|eval_jaxpr|checkpoint|remat\d?"
    r"|rematted_computation|custom_jvp_call|custom_vjp_call|while|body|cond|branch_\d+_fun|vmap|main|scan|none)$"
)
_WRAPPER = re.compile(r"^(jit|pjit|jvp|vmap|transpose|checkpoint|remat\d?|rematted_computation|custom_\w+)\((.*)\)$")
_GRADIENT = "gradient of "


def module_path(op_name: str) -> str:
    """Return the path of modules and the operation, without what tracing adds; "" if there is none.

    >>> module_path("jit(steps)/while/body/transpose(jvp(ResNet))/conv1/conv_general_dilated")
    'gradient of ResNet/conv1/conv_general_dilated'

    Args:
      op_name: of an instruction, see `hlo.Instruction`.
    """
    parts, is_gradient = [], False
    for part in _split(op_name):
        while found := _WRAPPER.match(part):
            is_gradient |= found[1] == "transpose"
            part = "" if found[1] in ("jit", "pjit") else found[2]
        is_method = bool(parts) and part.startswith(f"{parts[0]}.")  # Flax repeats the class: "ResNet/ResNet.features"
        if part and not is_method and not _TRACING.match(part):
            parts.append(part)
    return (_GRADIENT if is_gradient else "") + "/".join(parts)


def _split(op_name: str) -> list[str]:
    """Split at the slashes outside of parentheses."""
    parts, depth = [""], 0
    for letter in op_name:
        depth += (letter == "(") - (letter == ")")
        if letter == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
