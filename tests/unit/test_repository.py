"""
Facts about the tree that must not drift: what it names, how it is documented, what it pins.

A failing test here lists every offender, so that one run is enough to mend them all.
"""

import ast
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "sesguard"
NOT_OURS = {".git", ".venv", ".cache", "__pycache__", "build", "dist", ".hypothesis"}
TARGETS = {
    "bench",
    "clean",
    "constraints",
    "demo",
    "docs-images",
    "help",
    "layers",
    "lint",
    "messages",
    "test",
    "types",
}
LINES_AT_MOST = 450
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")


def files(*suffixes: str) -> Iterator[Path]:
    """Every file of the project with one of these suffixes; of any kind when none is given."""
    for directory, directories, names in os.walk(ROOT):
        directories[:] = sorted(set(directories) - NOT_OURS)
        for name in sorted(names):
            if not suffixes or name.endswith(suffixes):
                yield Path(directory, name)


def name_of(path: Path) -> str:
    """The path as it is written in a message."""
    return str(path.relative_to(ROOT))


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Name and text of every text file other than this one, which has to spell out the offences."""
    for path in files(*suffixes):
        content = path.read_bytes()
        if path != Path(__file__).resolve() and b"\0" not in content:
            yield name_of(path), content.decode(errors="replace")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Name and syntax tree of every Python file."""
    for path in files(".py"):
        yield name_of(path), ast.parse(path.read_bytes())


def lines_with(pattern: str, named_texts: Iterable[tuple[str, str]]) -> list[str]:
    """Each line in which the pattern is found, as ``file:number: line``."""
    found = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in named_texts
        for number, line in enumerate(text.splitlines(), 1)
        if found.search(line)
    ]


@cache
def pyproject() -> dict[str, Any]:
    """The project's settings."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class TestNames:
    def test_no_file_names_a_package_index(self) -> None:
        """No file names a package index, so that each machine uses the one it is set up for."""
        index = r"(?i)\bpypi\.org|pythonhosted\.org|\bdeb\.debian\.org|https?://\S+/simple\b"

        assert [] == lines_with(index, texts())

    def test_no_file_names_a_build_machine(self) -> None:
        """No file names a directory of the machine that it was written on."""
        place = rf"(?<![\w.])/[w]ork/|/\.pyenv/|/opt/(wheels|pypi)|{re.escape(str(ROOT))}/"

        assert [] == lines_with(place, texts())

    def test_pictures_stand_alone(self) -> None:
        """A picture loads nothing from elsewhere."""
        elsewhere = r"https?://(?!www\.w3\.org/)|@import|@font-face"

        assert [] == lines_with(elsewhere, texts(".svg"))


class TestCode:
    def test_modules_have_docstrings(self) -> None:
        """Every module says what it is."""
        assert [] == [name for name, tree in modules() if tree.body and not ast.get_docstring(tree)]

    def test_tests_state_the_behaviour(self) -> None:
        """Every test has a docstring of one sentence."""
        offenders = [
            f"{name}:{node.lineno}: {node.name}"
            for name, tree in modules()
            if Path(name).match("tests/**/test_*.py")
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and not is_one_sentence(ast.get_docstring(node))
        ]

        assert [] == offenders

    def test_files_are_short(self) -> None:
        """No Python file has outgrown one responsibility."""
        lengths = {name: text.count("\n") for name, text in texts(".py")}

        assert {} == {name: length for name, length in lengths.items() if length > LINES_AT_MOST}

    def test_nothing_is_left_for_later(self) -> None:
        """The source has no note of work that was put off."""
        source = ((name, text) for name, text in texts(".py") if name.startswith("src/"))

        assert [] == lines_with(r"\b(TODO|FIXME|XXX)\b", source)

    def test_every_package_has_its_layer(self) -> None:
        """Every package that exists stands in the contract that import-linter checks."""
        packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
        contracts = pyproject()["tool"]["importlinter"]["contracts"]
        layers = " ".join(next(each["layers"] for each in contracts if each["type"] == "layers"))

        assert set() == packages - set(re.findall(r"\w+", layers))


def is_one_sentence(docstring: str | None) -> bool:
    """Whether a docstring is one sentence, which may run over several lines."""
    if not docstring:
        return False
    sentence = " ".join(docstring.split())
    return "\n\n" not in docstring and sentence.endswith(".") and ". " not in sentence


class TestTools:
    def test_makefile_has_the_targets(self) -> None:
        """Every target that the documents speak of exists, and `make help` lists it."""
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

        assert set() == TARGETS - set(re.findall(r"(?m)^([a-z-]+):.* ## ", makefile))

    @pytest.mark.parametrize("pattern", [".ci/run", "tools/*.sh"])
    def test_scripts_can_be_run(self, pattern: str) -> None:
        """Every script is there, executable, and stops at the first command that fails."""
        scripts = list(ROOT.glob(pattern))

        assert scripts
        assert [] == [
            name_of(path)
            for path in scripts
            if not os.access(path, os.X_OK) or "\nset -euo pipefail\n" not in path.read_text()
        ]

    def test_continuous_integration_runs_make_test(self) -> None:
        """Continuous integration runs what a person runs, and nothing after it."""
        last_line = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]

        assert re.fullmatch(r"exec make .*\btest", last_line)


class TestDocuments:
    @pytest.mark.parametrize(
        "name",
        [
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "LICENSE",
            "README.md",
            "README.pt-BR.md",
            "SECURITY.md",
        ],
    )
    def test_document_exists(self, name: str) -> None:
        """Every document that a newcomer looks for is there."""
        assert (ROOT / name).is_file()

    def test_both_readmes_have_the_same_sections(self) -> None:
        """The Portuguese README has the sections of the English one, level by level."""
        assert heading_levels("README.md") == heading_levels("README.pt-BR.md")

    def test_architecture_names_every_package(self) -> None:
        """ARCHITECTURE.md says what each package is for."""
        text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
        packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}

        assert set() == {package for package in packages if f"`{package}`" not in text}

    def test_links_between_documents_lead_somewhere(self) -> None:
        """A link from one document to another names a file that exists."""
        broken = [
            f"{name_of(path)}: {target}"
            for path in files(".md")
            for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", path.read_text())
            if not (path.parent / target).exists()
        ]

        assert [] == broken


def heading_levels(name: str) -> list[int]:
    """The levels of a document's headings, in order; what stands in a code block is none."""
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    return [len(marks) for marks in re.findall(r"(?m)^(#+) ", prose)]


class TestConstraints:
    @pytest.mark.parametrize("name", ["dev", "runtime"])
    def test_every_pin_has_hashes(self, name: str) -> None:
        """A package is taken only when its file is one of those that were seen."""
        assert [] == [pin for pin, (_, hashes) in pins(name).items() if not hashes]

    @pytest.mark.parametrize("name", ["dev", "runtime"])
    def test_constraints_name_no_place(self, name: str) -> None:
        """The files hold pins and their reasons only: no option, address or path of a machine."""
        text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")

        assert [] == lines_with(r"://|^\s*--(?!hash=)|\s/|@", [(name, text)])

    def test_runtime_is_a_part_of_dev(self) -> None:
        """What `make demo` installs is what was tested."""
        dev = pins("dev")

        assert {} == {pin: seen for pin, seen in pins("runtime").items() if dev.get(pin) != seen}

    @pytest.mark.parametrize("name", ["dev", "runtime"])
    def test_pins_are_those_of_pyproject(self, name: str) -> None:
        """The constraints are made anew whenever pyproject.toml asks for something else."""
        pinned = pins(name)
        stale = [
            str(requirement)
            for requirement in wanted(name)
            if (pin := pinned.get(canonicalize_name(requirement.name))) is None
            or not requirement.specifier.contains(pin[0], prereleases=True)
        ]

        assert [] == stale

    @pytest.mark.parametrize("machine", MACHINES)
    @pytest.mark.parametrize("python", PYTHONS)
    @pytest.mark.parametrize("name", ["dev", "runtime"])
    def test_pins_are_complete_elsewhere(self, name: str, python: str, machine: str) -> None:
        """No other Python or processor that we support needs a package that has no pin."""
        environment = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "platform_machine": machine,
        }

        assert set() == needed(wanted(name), environment) - set(pins(name))


@cache
def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of every package in one of the constraints files."""
    text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")
    found = re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)((?: \\\n\s+--hash=\S+)*)", text)
    return {
        canonicalize_name(package): (version, frozenset(re.findall(r"--hash=(\S+)", hashes)))
        for package, version, hashes in found
    }


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for in one of the constraints files."""
    project = pyproject()["project"]
    extras = {"dev": ("sandbox", "pkcs11", "dev"), "runtime": ("sandbox", "pkcs11")}[name]
    lines = list(project["dependencies"]) + pyproject()["build-system"]["requires"]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def needed(requirements: list[Requirement], environment: dict[str, str]) -> set[str]:
    """Every package that these need in another environment, as far as one is installed here."""
    names: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [(requirement, frozenset[str]()) for requirement in requirements]
    while queue:
        requirement, of_extras = queue.pop()
        if not applies(requirement, of_extras, environment):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        asked = (name, frozenset(requirement.extras))
        if asked not in seen:
            seen.add(asked)
            queue += [(each, asked[1]) for each in requirements_of(name)]
    return names


def applies(requirement: Requirement, extras: frozenset[str], environment: dict[str, str]) -> bool:
    """Whether a requirement holds in that environment for a package taken with these extras."""
    if requirement.marker is None:
        return True
    return any(
        requirement.marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras}
    )


@cache
def requirements_of(name: str) -> list[Requirement]:
    """What an installed package needs; nothing is known of one that is not installed."""
    try:
        return [Requirement(line) for line in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []
