"""The rules that no single file can keep: who imports whom, what --help may cost, what the
container promises.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import registry

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "av", "lmdb", "h5py", "nltk", "gensim", "matplotlib", "scipy"}
# a module may import modules of its own layer and of the layers below it
LAYERS = {
    "pipeline": 0,
    "pipeline.datasets": 1,
    "pipeline.fetching": 1,
    "pipeline.stores": 1,
    "pipeline.text": 1,
    "pipeline.video": 1,
    "pipeline.cnn": 1,
    "pipeline.recipes": 1,
    "pipeline.checkpoints": 2,
    "pipeline.feeding": 2,
    "pipeline.training": 3,
    "pipeline.evaluation": 3,
    "pipeline.search": 4,
    "pipeline.report": 4,
    "pipeline.explain": 4,
    "pipeline.stages": 5,
    "pipeline.parity": 5,
    "pipeline.commands": 6,
    "cli": 7,
}
USES_MODELS = 2  # the lowest layer that may import models


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(p): p
    for p in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("models/**/*.py"), *ROOT.glob("cli.py")]
}


def layer(name: str) -> int:
    """Layer of a module of ours; everything of `pipeline` that is not named lies at the bottom."""
    return max(level for prefix, level in LAYERS.items() if f"{name}.".startswith(f"{prefix}."))


def imported(node: ast.AST, name: str) -> list[str]:
    """Modules that an import statement of module `name` asks for, in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
    inner = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
    return inner or [base]


def imports(name: str) -> set[str]:
    """Every module that a module imports anywhere, in functions too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return {target for node in ast.walk(tree) for target in imported(node, name)}


def imports_on_load(name: str) -> set[str]:
    """What is imported as soon as the module is: not in functions, not for type checkers only."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return {target for node in _outside_functions(tree.body) for target in imported(node, name)}


def _outside_functions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _outside_functions(node.orelse)
            continue
        yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from _outside_functions(getattr(node, block, []))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ("pipeline", "models", "cli")}


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def within(*packages: str) -> list[str]:
    return sorted(
        name
        for name in MODULES
        if any(f"{name}.".startswith(f"{package}.") for package in packages)
    )


def test_no_module_imports_a_layer_above_its_own() -> None:
    breaches = [
        f"{name} imports {target}"
        for name in within("pipeline", "cli")
        for target in ours(imports(name))
        if not target.startswith("models") and layer(target) > layer(name)
    ]

    assert breaches == []


def test_models_never_import_the_pipeline() -> None:
    breaches = {
        name: found
        for name in within("models")
        if (found := tops(imports(name)) & {"pipeline", "cli"})
    }

    assert breaches == {}


def test_models_import_nothing_but_torch_numpy_and_pydantic() -> None:
    allowed = {"torch", "numpy", "pydantic", "models"} | sys.stdlib_module_names

    assert {
        name: found for name in within("models") if (found := tops(imports(name)) - allowed)
    } == {}


def test_data_stores_text_and_core_never_import_models() -> None:
    breaches = [
        name
        for name in within("pipeline", "cli")
        if layer(name) < USES_MODELS and any(t.split(".")[0] == "models" for t in imports(name))
    ]

    assert breaches == []


def test_two_stages_never_import_each_other() -> None:
    stages = set(within("pipeline.stages")) - {"pipeline.stages"}

    assert {name: found for name in stages if (found := imports(name) & (stages - {name}))} == {}


def test_the_core_imports_no_torch_even_inside_functions() -> None:
    assert {
        name: found
        for name in within("pipeline.core")
        if (found := tops(imports(name)) & {"torch", "models"})
    } == {}


def test_what_the_command_line_loads_imports_nothing_heavy_at_the_top() -> None:
    light = [
        "pipeline.core",
        "pipeline.config",
        "pipeline.errors",
        "pipeline.log",
        "pipeline.registry",
    ]
    names = within(
        *light,
        "pipeline.stages",
        "pipeline.commands",
        *(f"models.{name}.options" for name in registry.names("model")),
        "cli",
    )

    assert {name: found for name in names if (found := tops(imports_on_load(name)) & HEAVY)} == {}


def test_only_stages_may_load_numpy_at_the_top_of_what_the_command_line_loads() -> None:
    names = within(
        "pipeline.core",
        "pipeline.config",
        "pipeline.commands",
        *(f"models.{name}.options" for name in registry.names("model")),
        "cli",
    )

    assert [name for name in names if "numpy" in tops(imports_on_load(name))] == []


def loaded_after(*command: str) -> set[str]:
    """Top-level packages that a Python process has imported when `command` (its arguments) ends
    well.
    """
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tops(
        {
            line.rpartition("|")[2].strip()
            for line in result.stderr.splitlines()
            if line.startswith("import time:")
        }
    )


def test_help_loads_neither_torch_nor_numpy() -> None:
    loaded = loaded_after("cli.py", "--help")

    assert "click" in loaded
    assert loaded & (HEAVY | {"numpy", "PIL", "tensorboard", "simplejpeg"}) == set()


def test_loading_every_stage_and_its_options_loads_nothing_heavy() -> None:
    code = (
        "from pipeline import registry; [registry.find('stage', n) for n in"
        " registry.names('stage')]"
    )

    assert loaded_after("-c", code) & HEAVY == set()


def test_listing_the_options_of_every_model_loads_no_torch() -> None:
    code = (
        "from pipeline import registry; [registry.model_options(n) for n in"
        " registry.names('model')]"
    )

    assert loaded_after("-c", code) & (HEAVY | {"numpy"}) == set()


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split()[0], line.split(maxsplit=1)[1].strip())
        for line in text.splitlines()
        if line.strip()
    ]


def last(instruction: str) -> str:
    return [arguments for name, arguments in instructions() if name == instruction][-1]


def test_container_runs_as_a_fixed_user_that_is_not_root() -> None:
    assert last("USER") == "10001:10001"


def test_container_starts_the_command_line_below_an_init_without_a_shell() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["tini", "--", "python", "cli.py"]
    assert json.loads(last("CMD")) == ["--help"]
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("VOLUME")) == ["/data", "/out", "/cache"]


def test_container_is_built_in_two_stages_from_named_versions_and_fetches_no_url() -> None:
    bases = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]

    assert bases == ["python:3.11-slim-bookworm"] * 2
    assert "ADD" not in {name for name, _ in instructions()}
    assert not re.search(
        r"\b(curl|wget|git clone)\b", (ROOT / "Dockerfile").read_text(encoding="utf-8")
    )


def test_dockerfile_has_no_findings() -> None:
    search = f"{Path(sys.executable).parent}:{Path('/usr/local/bin')}"
    program = shutil.which("hadolint", path=search) or shutil.which("hadolint")
    if not program:
        pytest.skip("hadolint is not installed (requirements-dev.txt)")

    result = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)

    assert (result.returncode, result.stdout) == (0, "")


def test_every_asset_that_ships_is_in_the_image() -> None:
    shipped = re.findall(
        r"^!(data/.+?)/?$", (ROOT / ".gitignore").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    copied = re.findall(
        r"^!(data/.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE
    )

    assert sorted(shipped) == sorted(copied)


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-clip.txt", "requirements-dev.txt"]
)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").split("\n")
    wanted = [line for line in lines if line and not line.startswith("#")]

    assert wanted
    assert [
        line for line in wanted if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+(; .+)?", line)
    ] == []


def test_continuous_integration_can_be_started() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
