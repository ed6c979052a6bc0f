"""Rules for the source: what it must not contain, and which packages must not import which."""

import ast
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from whole_runs import ROOT, python

PROGRAM_SOURCES = sorted(
    path for top in ("dreamer", "baselines", "plots") for path in (ROOT / top).rglob("*.py")
)
# Modules that turn bytes into arbitrary objects, or hand objects to other processes that way.
UNSAFE_MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml",
    "multiprocessing", "concurrent.futures.process",
}  # fmt: skip
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_METHODS = {
    "load_model", "model_from_json", "model_from_config", "enable_unsafe_deserialization",
    "system", "popen", "extractall", "unpack_archive", "mktemp", "load_op_library",
}  # fmt: skip
TENSORFLOW = {"tensorflow", "tensorflow_probability", "keras", "tf_keras"}
# Environment processes, the command line and the plots must start fast and small.
LIGHT = (
    "dreamer", "dreamer.io", "dreamer.config", "dreamer.envs", "dreamer.data", "dreamer.runs",
    "dreamer.logs.video", "dreamer.training.collector",
)  # fmt: skip
# A package imports packages of its own row and of the rows above, never of those below.
ORDER = (
    ("dreamer.errors", "dreamer.system"),
    ("dreamer.io", "dreamer.tasks"),
    ("dreamer.config", "dreamer.envs", "dreamer.logs", "dreamer.ops"),
    ("dreamer.nets",),
    ("dreamer.agent", "dreamer.data"),
    ("dreamer.runs",),
    ("dreamer.training",),
    ("dreamer.analysis", "dreamer.benchmarks", "dreamer.sweeps"),
    ("dreamer.watching",),
    ("dreamer.run", "dreamer.evaluate", "dreamer.predict", "dreamer.watch", "dreamer.export",
     "dreamer.sweep", "dreamer.benchmark", "dreamer.gpu_check"),
    ("dreamer.__main__",),
    ("baselines",),
)
# The plots run without TensorFlow and read what runs leave on disk.
PLOTS_USE = (
    "dreamer.errors", "dreamer.system", "dreamer.io", "dreamer.tasks", "dreamer.config",
    "dreamer.data", "dreamer.runs", "dreamer.logs",
)  # fmt: skip


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yields all nodes but those below ``if TYPE_CHECKING``, which no run executes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from run_time_nodes(child)


@functools.cache
def imports_of(path: Path, typing_too: bool = False) -> frozenset[str]:
    """Every module that a file imports, in functions too; of packages, what is taken from them."""
    names = set()
    for node in (ast.walk if typing_too else run_time_nodes)(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def under(name: str, packages: set[str] | tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def sources_under(*packages: str) -> list[Path]:
    return [p for p in PROGRAM_SOURCES if under(module_name(p), packages)]


def unsafe_calls(tree: ast.AST) -> list[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in calls if is_unsafe(node)]


def is_unsafe(call: ast.Call) -> bool:
    for keyword in call.keywords:
        off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("allow_pickle", "shell") and not off:
            return True
    name = ast.unparse(call.func).rpartition(".")[2]
    if isinstance(call.func, ast.Name) and name in UNSAFE_BUILTINS:
        return True
    if isinstance(call.func, ast.Attribute) and name in UNSAFE_METHODS:
        return True
    return name == "YAML" and "typ='safe'" not in ast.unparse(call)


@pytest.mark.parametrize("path", PROGRAM_SOURCES, ids=lambda path: module_name(path))
def test_nothing_can_run_what_a_file_says(path: Path):
    assert not [name for name in imports_of(path) if under(name, UNSAFE_MODULES)]
    assert not unsafe_calls(tree_of(path))


@pytest.mark.parametrize("line", [
    *("eval('1')", "exec('1')", "YAML()", "YAML(typ='unsafe')", "tf.load_op_library(f)"),
    *("np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=x)", "os.system('ls')"),
    *("keras.models.load_model(f)", "archive.extractall(folder)", "shutil.unpack_archive(f)"),
    *("tempfile.mktemp()", "subprocess.run('ls', shell=True)"),
])  # fmt: skip
def test_the_scan_finds_what_it_looks_for(line: str):
    assert unsafe_calls(ast.parse(line))
    harmless = "re.compile(x); model.compile(); np.load(f, allow_pickle=False); YAML(typ='safe')"
    assert not unsafe_calls(ast.parse(harmless))


@functools.cache
def reachable(name: str) -> frozenset[str]:
    """Every module outside or inside the project that importing and using `name` may load."""
    homes = {module_name(path): path for path in PROGRAM_SOURCES}
    seen: set[str] = set()
    queue = [name]
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in homes:
            queue.extend(imports_of(homes[current]))
            queue.append(current.rpartition(".")[0])
    return frozenset(seen)


@pytest.mark.parametrize("package", [*LIGHT, "plots"])
def test_light_modules_never_load_tensorflow(package: str):
    # The package itself loads its public names on first use; the modules below it are asked apart.
    paths = [ROOT / "dreamer/__init__.py"] if package == "dreamer" else sources_under(package)
    assert paths, f"{package} is gone: change LIGHT"
    for path in paths:
        heavy = [name for name in reachable(module_name(path)) if under(name, TENSORFLOW)]
        assert not heavy, f"{path.relative_to(ROOT)} reaches {heavy}"


def test_importing_them_loads_no_tensorflow():
    names = [module_name(path) for path in sources_under(*LIGHT[1:])]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += f"print(*sorted({TENSORFLOW!r} & set(sys.modules)))"
    done = python("-c", code, "dreamer", *[n for n in names if "__main__" not in n])
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_every_package_has_its_place():
    placed = (*(name for names in ORDER for name in names), "plots")
    # `dreamer` itself only names what it loads on first use.
    lost = [module_name(p) for p in PROGRAM_SOURCES if not under(module_name(p), placed)]
    assert lost == ["dreamer"]


def wrong_imports(*packages: str, allowed: Callable[[str], bool]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources_under(*packages)
        for name in sorted(imports_of(path, typing_too=True))
        if under(name, ("dreamer", "baselines", "plots")) and not allowed(name)
    ]


def test_one_name_has_one_meaning():
    """No two modules share a name; but dreamer and the baselines have programs of the same use."""
    names = Counter(path.stem for path in PROGRAM_SOURCES if path.stem != "__init__")
    programs = {"run", "evaluate", "watch", "benchmark"}
    assert {name for name, count in names.items() if count > 1} == programs


@pytest.mark.parametrize("rank", range(len(ORDER)), ids=lambda rank: ORDER[rank][0])
def test_packages_import_in_one_direction(rank: int):
    below = ("plots", *(name for names in ORDER[rank + 1 :] for name in names))
    assert not wrong_imports(*ORDER[rank], allowed=lambda name: not under(name, below))


def test_plots_import_the_light_parts_of_dreamer():
    light = (*PLOTS_USE, "plots")
    assert not wrong_imports("plots", allowed=lambda n: n == "dreamer" or under(n, light))


def module_graph() -> dict[str, set[str]]:
    homes = {module_name(path): path for path in PROGRAM_SOURCES}
    return {
        name: {other for other in imports_of(path) if other in homes and other != "dreamer"}
        for name, path in homes.items()
    }


def package_of(name: str) -> str:
    """The package of a module of `dreamer`, or the top-level one; modules beside are their own."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "dreamer" else 1])


def test_no_modules_and_no_packages_import_each_other():
    modules = module_graph()
    TopologicalSorter(modules).prepare()  # raises CycleError
    packages: dict[str, set[str]] = {}
    for name, others in modules.items():
        found = {package_of(other) for other in others} - {package_of(name)}
        packages.setdefault(package_of(name), set()).update(found)
    TopologicalSorter(packages).prepare()
