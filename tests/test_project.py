"""Tests of the project files: Makefile, workflows, hooks and changelog."""

import re
import tomllib

import pytest
import yaml
from commands import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs_of(workflow):
    return yaml.safe_load(workflow.read_text())["jobs"]


def commands_of(job):
    """Return the commands of a job, one per combination of its matrix."""
    lines = [step["run"] for step in job["steps"] if "run" in step]
    matrix = job.get("strategy", {}).get("matrix", {})
    for name, values in matrix.items():
        field = f"${{{{ matrix.{name} }}}}"
        lines = [line.replace(field, value) for line in lines for value in (values if field in line else values[:1])]
    return lines


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflows_run_make_targets_only(workflow):
    for job in jobs_of(workflow).values():
        commands = commands_of(job)
        assert commands
        assert {command.removeprefix("make ") for command in commands} <= TARGETS


def test_workflows_cover_what_make_test_runs():
    targets = {
        command.removeprefix("make ")
        for workflow in WORKFLOWS
        for job in jobs_of(workflow).values()
        for command in commands_of(job)
    }
    (prerequisites,) = re.findall(r"^test: ([a-z -]+?) +##", MAKEFILE, flags=re.MULTILINE)
    assert {*prerequisites.split(), "docs", "dist"} == targets


def test_workflows_test_every_supported_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    tested = [
        job["strategy"]["matrix"]["python"] for w in WORKFLOWS for job in jobs_of(w).values() if "strategy" in job
    ]
    assert tested == [supported]
    assert project["requires-python"] == f">={supported[0]}"


def test_makefile_describes_every_target():
    assert set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, flags=re.MULTILINE)) == TARGETS
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(phony.split()) == TARGETS


def test_makefile_fast_tests_exist():
    (names,) = re.findall(r"^FAST_TESTS := ((?:.*\\\n)*.*)$", MAKEFILE, flags=re.MULTILINE)
    for name in names.replace("\\\n", " ").split():
        assert list((ROOT / "tests").glob(f"test_{name}*.py")), name


@pytest.mark.parametrize(
    "file",
    [
        ".pre-commit-config.yaml",
        *(
            f".github/{name}"
            for name in (
                "dependabot.yml",
                "ISSUE_TEMPLATE/bug_report.yml",
                "ISSUE_TEMPLATE/config.yml",
                "ISSUE_TEMPLATE/feature_request.yml",
            )
        ),
    ],
)
def test_yaml_files_are_valid(file):
    assert yaml.safe_load((ROOT / file).read_text())


def test_pre_commit_hooks_are_the_linters_of_make_lint():
    hooks = {
        hook["id"]
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repository["hooks"]
    }
    assert {"ruff-check", "ruff-format", "pyright", "import-linter", "no-notebooks"} <= hooks


def test_changelog_has_an_unreleased_section():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.*?)\]", text, flags=re.MULTILINE)[0] == "Unreleased"
    sections = set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
