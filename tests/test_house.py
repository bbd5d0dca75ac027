"""The rules that no single file can keep: who imports whom, what --help may cost, what is called,
and that everything the texts name is there.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline import config, registry
from tests import house_debts as debts
from tests import written

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
    "pipeline.pages": 1,
    "pipeline.checkpoints": 2,
    "pipeline.feeding": 2,
    "pipeline.training": 3,
    "pipeline.evaluation": 3,
    "pipeline.search": 4,
    "pipeline.report": 4,
    "pipeline.explain": 4,
    "pipeline.serve": 5,
    "pipeline.stages": 5,
    "pipeline.parity": 5,
    "pipeline.commands": 6,
    "cli": 7,
}
# public, and called by other programs or by Python itself: name -> who calls it
CALLED_FROM_OUTSIDE = {
    "cli:Lazy.get_command": "click",
    "cli:Lazy.format_commands": "click",
    "pipeline.commands._stage:StageCommand.format_options": "click",
    "pipeline.visible:Stream.writelines": "whatever writes to a stream",
    # the plain formulation, with which tests compare the faster one
    "models.diffusion_ret.denoiser:Denoiser.text_to_video": "tests",
    "models.diffusion_ret.denoiser:Denoiser.video_to_text": "tests",
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


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> set[str]:
    """Every module that a module imports anywhere, in functions and for type checkers too."""
    return {target for node in ast.walk(tree(name)) for target in imported(node, name)}


def imports_on_load(name: str) -> set[str]:
    """What is imported as soon as the module is: not in functions, not for type checkers only."""
    body = tree(name).body
    return {target for node in _outside_functions(body) for target in imported(node, name)}


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


def test_every_citation_names_a_specification_and_a_section_that_exist() -> None:
    dangling = [
        f"{file}: docs/specs/{spec}, section {number}"
        for file, spec, number in written.citations()
        if not (written.SPECS / spec).is_file() or (number and number not in written.sections(spec))
    ]

    assert dangling == []


def test_every_path_and_module_that_a_text_names_exists() -> None:
    dangling = [f"{file}: {p}" for file, p in written.paths() if not (ROOT / p).exists()]
    dangling += [
        f"{file}: python -m {module}"
        for file, module in written.modules()
        if not (ROOT / f"{module.replace('.', '/')}.py").is_file()
    ]

    assert dangling == []


def test_every_function_on_the_map_is_in_the_file_it_names() -> None:
    named = list(written.members("docs/architecture.md"))

    assert len(named) > 50
    assert [f"{file}: {name}" for file, name in named if not written.has_member(file, name)] == []


def test_every_command_pipeline_and_recipe_that_a_text_names_exists() -> None:
    known, loaded = {*registry.names("command"), *registry.names("stage")}, config.load()
    unknown = [f"{file}: cli.py {c}" for file, c in written.commands() if c not in known]
    unknown += [
        f"{file}: cli.py {command} {name}"
        for file, command, name in written.named()
        if name not in loaded.pipelines and name not in loaded.recipes
    ]

    assert unknown == []


def test_no_text_of_the_product_points_outside_the_repository() -> None:
    assert list(written.outside()) == []


def test_no_folder_holds_more_modules_than_can_be_seen_at_once() -> None:
    by_file_name = {"pipeline/commands", "pipeline/stages"}  # listed by --help, one file each
    folders = Counter(
        Path(name).parent.as_posix()
        for name in written.texts()
        if name.endswith(".py") and not name.endswith("__init__.py") and name[:6] != "tests/"
    )

    assert {f: n for f, n in folders.items() if n > 16 and f not in by_file_name} == {}


def public(name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """(dotted name, node) of what a module offers: its functions, classes and their methods."""
    for node in tree(name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                methods = [f for f in node.body if isinstance(f, ast.FunctionDef)]
                yield from ((f"{node.name}.{f.name}", f) for f in methods if f.name[0] != "_")


def in_circles() -> set[str]:
    """Modules that are left when those are taken away, again and again, that import nothing of the
    rest, or that nothing of the rest imports.
    """
    rest = {name: {t for t in imports(name) if t in MODULES} - {name} for name in MODULES}
    while True:
        wanted = set().union(*rest.values())
        kept = {n: t & rest.keys() for n, t in rest.items() if n in wanted and t & rest.keys()}
        if len(kept) == len(rest):
            return set(rest)
        rest = kept


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert in_circles() == set()


def test_evaluation_imports_nothing_from_training() -> None:
    rooms = within("pipeline.evaluation", "pipeline.search", "pipeline.report", "pipeline.explain")

    assert {
        name: found
        for name in rooms
        if (found := {t for t in imports(name) if t.startswith("pipeline.training")})
    } == {}


def test_everything_public_is_used_by_the_product() -> None:
    used: set[str] = set()
    for name in MODULES:
        for node in ast.walk(tree(name)):
            used |= {getattr(node, "attr", ""), node.id if isinstance(node, ast.Name) else ""}
    unused = {
        f"{module}:{name}"
        for module in MODULES
        for name, node in public(module)
        if node.name not in used
    }

    assert unused - CALLED_FROM_OUTSIDE.keys() - debts.STILL_UNUSED == set()


def has_tensors(function: ast.FunctionDef) -> bool:
    """Whether a function takes or gives a tensor that is not one of a dictionary of weights."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    types = [ast.unparse(a.annotation) for a in arguments if a.annotation]
    types += [ast.unparse(function.returns)] if function.returns else []
    return any(re.search(r"\bTensor\b", re.sub(r"\w+\[str, Tensor\]", "", t)) for t in types)


def test_every_tensor_function_of_a_model_says_shapes() -> None:
    without = {
        f"{module}:{name}"
        for module in within("models")
        for name, node in public(module)
        if isinstance(node, ast.FunctionDef) and has_tensors(node)
        if not re.search(r"\([^()]*\)", ast.get_docstring(node) or "")
    }

    assert without - debts.STILL_WITHOUT_SHAPES == set()


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of the exceptions that a function raises itself, not in functions inside it."""
    found, pending = set(), list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found.add(ast.unparse(error).rpartition(".")[2])
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            pending += ast.iter_child_nodes(node)
    return found


def raised_through_helpers(module: str, function: ast.FunctionDef) -> set[str]:
    """The same with what the private functions of the module raise that it calls, in turn."""
    functions = {n.name: n for n in ast.walk(tree(module)) if isinstance(n, ast.FunctionDef)}
    found, pending, seen = set(), [function], set()
    while pending:
        current = pending.pop()
        seen.add(current.name)
        found |= raised(current)
        calls = [n.func for n in ast.walk(current) if isinstance(n, ast.Call)]
        names = {ast.unparse(call).removeprefix("self.") for call in calls}
        pending += [functions[n] for n in names & functions.keys() - seen if n[0] == "_"]
    return found


def test_every_function_of_a_model_that_raises_says_so() -> None:
    silent = {
        f"{module}:{name} {error}"
        for module in within("models")
        for name, node in public(module)
        if isinstance(node, ast.FunctionDef)
        for error in raised_through_helpers(module, node)
        if error not in (ast.get_docstring(node) or "")
    }

    assert {fault.partition(" ")[0] for fault in silent} - debts.STILL_SILENT == set()


def test_no_two_public_classes_have_one_name() -> None:
    by_role = {"Options", "Stage", "Dataset"}  # found by file name: one in each file
    names = Counter(
        node.name
        for module in MODULES
        for name, node in public(module)
        if isinstance(node, ast.ClassDef) and name not in by_role
    )

    assert {name for name, count in names.items() if count > 1} - debts.STILL_TWICE == set()


def test_the_table_in_readme_says_how_sure_it_is() -> None:
    shown = written.texts()["README.md"]
    rows = re.findall(r"^(?:train@)?\w[\w-]* +\d+\.\d to \d+\.\d +\d+\.\d to", shown, re.MULTILINE)

    assert len(rows) >= 9
