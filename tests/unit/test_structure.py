"""What may depend on what, and the rules of the house that a program can check."""

import ast
import graphlib
import importlib
import pkgutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import ClassVar, get_origin

import pytest

import kernels.kinds
from kernels.graph import Kind
from kernels.models import all_stages
from workbench.demo import MODEL

ROOT = Path(__file__).parents[2]
MODULES = {package: sorted((ROOT / package).rglob("*.py")) for package in ("kernels", "store", "workbench")}
ALLOWED = {
    "kernels": {"kernels", "numpy", "numba", "llvmlite", "platformdirs"},
    # and no package of a model format
    "store": {"store", "kernels", "aiohttp", "fsspec", "numpy", "h5py", "lz4", "platformdirs", "zlib_ng", "zstandard"},
}


# Inside workbench/, in the order of building: a package may use itself and those before it, deferred imports counted.
PACKAGES = (
    *(
        "session",
        "machine",
        "cells",
        "tensors",
        "conventions",
        "pair",
        "feeding",
        "capture",
        "bisect",
        "lab",
        "jobs",
        "sweep",
    ),
    *("demo", "record", "vary", "sides", "report", "app", "cli"),
)


def imported(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


def modules_used_by() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, wherever in it."""
    files = {_name(source).removesuffix(".__init__"): source for sources in MODULES.values() for source in sources}
    used: dict[str, set[str]] = {name: set() for name in files}
    for name, source in files.items():
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                used[name] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                used[name] |= (inner & files.keys()) or ({str(node.module)} & files.keys())
    return used


def test_arrows_inside_workbench_run_one_way():
    order = {f"workbench.{package}": place for place, package in enumerate(PACKAGES)}

    def place(module: str) -> int | None:
        return order.get(".".join(module.split(".")[:2]))

    for module, used in modules_used_by().items():
        here = place(module)
        backwards = {other for other in used if here is not None and (place(other) or 0) > here}
        assert not backwards, f"{module} imports {backwards}"


def test_no_module_needs_itself():
    circle: list[str] = []
    try:
        graphlib.TopologicalSorter(modules_used_by()).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    assert circle == []


def test_a_stage_name_stands_in_one_place():
    """With the families, and where other engines' names are read; GGUF calls some tensors as stages are called."""
    allowed = (
        "kernels/models",
        "kernels/experts.py",
        "kernels/layer_embeddings.py",
        "kernels/state_space.py",
        "kernels/stages.py",
        "store/traces",
        "store/names.py",
        "store/files/gguf_kinds.py",
    )
    scripts = (
        "workbench/record/transformers_script.py",
        "workbench/record/expert_layers_script.py",
        "workbench/record/gemma4_script.py",
        "workbench/record/recurrent_layers_script.py",
        "workbench/record/llama_cpp_script.py",
    )  # run by other Pythons
    for source in [path for sources in MODULES.values() for path in sources]:
        name = source.relative_to(ROOT).as_posix()
        if not name.startswith(allowed) and name not in scripts:
            texts = {node.value for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Constant)}
            assert not texts & (set(all_stages()) - {"router"}), name  # which a cause is called, too


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_run_one_way(package):
    for source in MODULES[package]:
        foreign = imported(source) - ALLOWED[package] - set(sys.stdlib_module_names)
        assert not foreign, f"{source.relative_to(ROOT)} imports {foreign}"


def test_nothing_but_the_app_imports_textual():
    for source in [path for sources in MODULES.values() for path in sources]:
        if "app" not in source.relative_to(ROOT).parts:
            assert "textual" not in imported(source), source


@pytest.mark.parametrize(
    "modules",
    [
        "kernels.forward, kernels.metrics, store.artifact, store.traces.hdf5",
        "workbench.capture.job, workbench.cells.compare",
    ],
)
def test_the_headless_core_runs_without_textual(modules):
    code = f"import sys, {modules}; sys.exit(any(name.split('.')[0] == 'textual' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_text_is_utf_8_whatever_the_locale():
    sources = [source for package in MODULES.values() for source in package]
    assert [source for source in sources if ".read_text()" in source.read_text(encoding="utf-8")] == []


def test_compiler_flags_are_set_in_one_place():
    for source in MODULES["kernels"]:
        if source.name != "compiler.py":
            text = source.read_text()
            assert "njit" not in text, source
            assert "fastmath" not in text, source


def _name(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts)


def test_every_kernel_module_is_compiled_ahead():
    from kernels.machine import compiler

    for source in (source for source in MODULES["kernels"] if source.name != "__init__.py"):
        importlib.import_module(_name(source))
    assert {kernel.__module__ for kernel, _ in compiler._registered} == set(compiler.kernel_modules())


@pytest.mark.parametrize(
    ("start", "status"), [("import workbench", 1), ("sys.argv = ['/bin/workbench']; import workbench", 2)]
)
def test_a_foreign_package_of_the_same_name_is_named(tmp_path, start, status):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({str(ROOT)!r}); {start}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("Traceback" in done.stderr) == (status == 1)
    assert f"Python finds {tmp_path / 'store/__init__.py'}; uninstall the foreign package 'store'" in done.stderr


def test_help_comes_without_the_compiler_the_store_or_the_screen():
    code = (
        "import sys; sys.argv = ['workbench', '--help']\n"
        "from workbench.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'numba', 'h5py', 'textual', 'gguf', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_models_are_opened_without_the_compiler():
    code = f"import sys; from store.open import open_artifact as o; o({str(MODEL)!r}); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_a_kind_with_fields_is_a_dataclass_of_its_own():
    """Else its fields would be attributes of the class, and two kinds that differ in them would be one."""
    for module in pkgutil.iter_modules(kernels.kinds.__path__, "kernels.kinds."):
        importlib.import_module(module.name)
    kinds = [Kind]
    for kind in kinds:
        kinds += kind.__subclasses__()
        own = {name for name, of in vars(kind).get("__annotations__", {}).items() if get_origin(of) is not ClassVar}
        assert own <= {field.name for field in fields(kind)}, kind.__name__
