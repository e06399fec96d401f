"""The examples in docstrings run, and every public function and class has one."""

import ast
import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import anchor_jax as aj

PACKAGE = Path(aj.__file__).parent
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text()]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# modules of `anchor_jax.__all__` whose functions and classes must have an example
DOCUMENTED = (
    "anchoring",
    "conformal",
    "data",
    "inference",
    "metrics",
    "models",
    "objective",
    "pager",
    "regression",
    "scaling",
    "uncertainty",
)
WITHOUT_EXAMPLE = {"ExportedClassifier", "data.Batch", "data.TrainStream", "models.Architecture"}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples(file: Path, globs: dict[str, object]) -> Iterator[doctest.DocTest]:
    """Yield the examples of each docstring in a file, of decorated functions and nested classes, too."""
    parser = doctest.DocTestParser()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (docstring := ast.get_docstring(node)):
            name = getattr(node, "name", "module")
            test = parser.get_doctest(docstring, globs, name, str(file), node.body[0].lineno - 1)
            if test.examples:
                yield test


def is_documentable(value: object) -> bool:
    return inspect.isclass(value) or (callable(value) and not isinstance(value, ModuleType))


def public_objects() -> dict[str, object]:
    """Return the functions and classes of `anchor_jax.__all__` and of the modules in it, by name."""
    found = {name: getattr(aj, name) for name in aj.__all__}
    for module_name in DOCUMENTED:
        module = getattr(aj, module_name)
        defined = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
        names = getattr(module, "__all__", [name for name in defined if not name.startswith("_")])
        found |= {f"{module_name}.{name}": getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if is_documentable(value)}


@pytest.mark.parametrize("file", FILES, ids=map(module_name, FILES))
def test_examples_of_a_module_run(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner, output = doctest.DocTestRunner(optionflags=FLAGS), []
    for test in examples(file, dict(vars(importlib.import_module(module_name(file))))):
        runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def test_every_public_object_has_an_example():
    missing = {name for name, value in public_objects().items() if ">>> " not in (value.__doc__ or "")}
    assert missing == WITHOUT_EXAMPLE
