"""What no module may do with files that come from elsewhere, read from the source of all of them."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("curation", "sapiens2", "components", "pipelines")
# Unpickling runs what it reads. These unpickle only what their own driver sent through Ray.
MAY_UNPICKLE = {"sapiens2/launch.py", "components/partitions.py", "components/prediction/run.py"}


def calls():
    """(file, call as written, call) of every call of every module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(ROOT)), ast.unparse(node.func), node


def test_weights_are_loaded_without_running_code():
    loads = [(file, node) for file, name, node in calls() if name == "torch.load"]
    assert loads
    for file, node in loads:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("weights_only") == "True", file


def test_nothing_unpickles_a_file_or_unpacks_an_archive_or_asks_a_shell():
    for file, name, node in calls():
        assert not name.endswith((".extractall", ".unpack_archive")), file
        if name in ("pickle.load", "pickle.loads", "dill.load", "joblib.load", "marshal.loads"):
            own = bool(node.args) and ast.unparse(node.args[0]).startswith("pickle.dumps(")  # to see that it can be
            assert own or file in MAY_UNPICKLE, file
        if name == "numpy.load" or name == "np.load":
            assert all(k.arg != "allow_pickle" or ast.unparse(k.value) == "False" for k in node.keywords), file
        assert name not in ("yaml.load", "yaml.unsafe_load", "os.system", "eval", "exec"), (file, name)
        assert not any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords), file
