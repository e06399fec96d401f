"""Annotated shapes and dtypes hold: tests and examples of core and metrics pass under the import hook of jaxtyping."""

import os
import subprocess
import sys
import textwrap

import pytest
from commands import ROOT

TYPECHECKER = "annotation_checker.typechecked"
PACKAGES = ("anchor_jax.core", "anchor_jax.metrics")
CHECKED_TESTS = ("anchoring", "losses", "uncertainty", "transduction", "selective")
TIMEOUT_SECONDS = 600


def run_checked(packages, *arguments, path=""):
    """Run pytest in a process of its own, in which the functions of these packages check their annotations."""
    checked = f"--jaxtyping-packages={','.join((*packages, TYPECHECKER))}"
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", checked, *map(str, arguments)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(path), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    }
    return subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


def test_tests_and_examples_pass_with_checked_annotations():
    files = [f"tests/test_{name}.py" for name in CHECKED_TESTS]
    examples = ["tests/test_doctests.py", "-k", "not doctests or anchor_jax.core or anchor_jax.metrics"]
    done = run_checked(PACKAGES, *files, *examples, "-m", "not invalid_arguments")
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize(
    ("annotation", "call", "passes"),
    [
        ('x: Float[Array, "batch features"]) -> Float[Array, "batch"]', "x.sum(axis=1)", True),
        ('x: Float[Array, "batch features"]) -> Float[Array, "batch"]', "x.sum(axis=0)", False),
        ('x: Float[Array, "batch features"]) -> Int32[Array, "batch"]', "x.sum(axis=1)", False),
        ('x: Float[Array, "batch"]) -> Float[Array, "..."]', "x", False),
    ],
)
def test_a_wrong_annotation_fails(annotation, call, passes, tmp_path):
    (tmp_path / "annotated.py").write_text(
        "from __future__ import annotations\n"
        "from jaxtyping import Array, Float, Int32\n"
        f"def function({annotation}:\n    return {call}\n"
    )
    test = tmp_path / "test_annotated.py"
    test.write_text("import annotated, jax.numpy as jnp\ndef test():\n    annotated.function(jnp.ones((2, 3)))\n")
    done = run_checked(("annotated",), test, path=tmp_path)
    assert (done.returncode == 0) == passes
    assert ("TypeCheckError" in done.stdout) == (not passes)


def test_public_functions_check_their_annotations_under_the_hook(tmp_path):
    test = tmp_path / "test_hook.py"
    test.write_text(
        textwrap.dedent(
            """
            import jax.numpy as jnp, jaxtyping, pytest
            import anchor_jax as aj

            def test():
                with pytest.raises(jaxtyping.TypeCheckError):
                    aj.anchor(jnp.ones((2, 3)), jnp.ones((2, 4)))
                with pytest.raises(jaxtyping.TypeCheckError):
                    aj.metrics.nll(jnp.ones((2, 3)), jnp.zeros(2))
            """
        )
    )
    done = run_checked(PACKAGES, test)
    assert done.returncode == 0, done.stdout[-5000:]
