"""Annotated shapes and dtypes hold: tests and examples of core and metrics pass under the import hook of jaxtyping."""

import os
import re
import subprocess
import sys
import textwrap

from commands import ROOT

TYPECHECKER = "annotation_checker.typechecked"
PACKAGES = ("anchor_jax.core", "anchor_jax.metrics")
CHECKED_TESTS = ("anchoring", "uncertainty", "transduction")  # the examples cover the other modules
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


ANNOTATIONS = {  # name -> annotation, what is returned, whether that is as annotated
    "right": ('x: Float[Array, "batch features"]) -> Float[Array, "batch"]', "x.sum(axis=1)", True),
    "another_axis": ('x: Float[Array, "batch features"]) -> Float[Array, "batch"]', "x.sum(axis=0)", False),
    "another_dtype": ('x: Float[Array, "batch features"]) -> Int32[Array, "batch"]', "x.sum(axis=1)", False),
    "another_rank": ('x: Float[Array, "batch"]) -> Float[Array, "..."]', "x", False),
}


def test_wrong_annotations_fail(tmp_path):
    functions = [f"def {name}({text}:\n    return {result}\n" for name, (text, result, _) in ANNOTATIONS.items()]
    tests = [f"def test_{name}():\n    annotated.{name}(jnp.ones((2, 3)))\n" for name in ANNOTATIONS]
    (tmp_path / "annotated.py").write_text(
        "from __future__ import annotations\nfrom jaxtyping import Array, Float, Int32\n" + "".join(functions)
    )
    test = tmp_path / "test_annotated.py"
    test.write_text("import annotated, jax.numpy as jnp\n" + "".join(tests))
    done = run_checked(("annotated",), test, "-rA", path=tmp_path)
    for name, (_, _, passes) in ANNOTATIONS.items():
        outcome = "PASSED" if passes else "FAILED"
        assert re.search(rf"^{outcome} .*::test_{name}( - .*Type|$)", done.stdout, flags=re.MULTILINE), done.stdout


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
