"""`sapiens2 submit` and the `kfp` command line against a server that checks the protocol, and runs what it is sent."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp_api import KfpApi
from micro_runs import digests, sapiens2, sapiens2_here

from components.artifacts import Store, parquet_bytes
from components.attempt import file_entry
from components.settings import Settings
from components.steps import STEPS
from pipelines.compile import compile_pipeline
from pipelines.kfp_server import RunFailed
from pipelines.submission import arguments_for, check_arguments
from pipelines.submit_command import submit

MICRO = ("--preset", "micro")
TOKEN = "a-bearer-token-of-this-test"


@pytest.fixture
def api(tmp_path):
    server = KfpApi(tmp_path / "server")
    yield server
    server.close()


def submit_here(*arguments, root):
    """The command in this process: what would be a line and exit code 2 is raised."""
    submit.main([*map(str, arguments), "--root", str(root)], standalone_mode=False)


@pytest.fixture
def pending_api(tmp_path):
    """Takes and checks everything, runs nothing."""
    server = KfpApi(tmp_path / "server", execute=False)
    yield server
    server.close()


@pytest.mark.timeout(500)
def test_a_submitted_run_on_s3_equals_a_run_here(api, micro_run, micro_pool, s3_root, tmp_path):
    """The whole way of a cluster: the real client, the wire, the compiled pipeline, artifacts on S3."""
    command = ("submit", "full", "--host", api.url, "--pool", micro_pool, *MICRO)
    done = sapiens2(*command, "--follow", "--poll", "0.5", root=s3_root, cwd=tmp_path, check=False)
    (run,) = api.runs.values()
    assert done.returncode == 0, done.stdout + done.stderr[-2000:] + run["log"].read_text()[-3000:]
    assert f"{api.url}/#/runs/details/{run['run_id']}" in done.stdout
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("succeeded ")} == set(STEPS)
    assert digests(s3_root) == digests(micro_run[0])
    again = sapiens2("run", "--pool", micro_pool, *MICRO, root=s3_root, cwd=tmp_path)
    assert f"{len(STEPS)} reused" in again.stdout and f"report: {s3_root}/report/" in again.stdout
    store = Store(s3_root)
    for artifact in store.all():
        left = [path for path, is_file, _, _ in store.storage.list(artifact.folder, recursive=True) if is_file]
        listed = [entry.path for entry in artifact.manifest.files]
        assert sorted(left) == sorted([*listed, f"{artifact.folder}/manifest.json"])
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert secret.startswith(b"planted")
    texts = [
        path for path, is_file, _, _ in store.storage.list("", recursive=True) if path.endswith((".json", ".html"))
    ]
    assert len(texts) > 3 * len(STEPS)  # manifests, events and pages
    assert not [path for path in texts if secret in store.storage.read(path)]
    assert not [path for path in api.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert secret not in json.dumps(api.bodies).encode() and secret.decode() not in done.stdout + done.stderr


def test_kfp_run_create_runs_a_compiled_stage(api, micro_run, tmp_path):
    """The `kfp` command line, and a stage of its own: its inputs come from importers."""
    root = shutil.copytree(micro_run[0], tmp_path / "root")  # other tests look at the latest of the shared one
    package = compile_pipeline("stage:filter", tmp_path / "filter.yaml")
    settings = Settings(preset="micro", overrides={"filter.min_person_px": 301})
    arguments = arguments_for(package, settings, str(root), pool=None, given={}, explicit={}, code_version="test")
    command = [str(Path(sys.executable).parent / "kfp"), "--endpoint", api.url, "run", "create", "-e", "stages"]
    command += [
        "-f",
        str(package),
        *(f"{n}={v if isinstance(v, str) else json.dumps(v)}" for n, v in arguments.items()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    (run,) = api.runs.values()
    assert run["child"].wait(timeout=120) == 0, run["log"].read_text()[-3000:]
    made = [a for a in Store(str(root)).all("filtered") if a.manifest.config["min_person_px"] == 301]
    again = sapiens2_here(*("step", "filter", *MICRO, "--set", "filter.min_person_px=301"), root=root, cwd=tmp_path)
    assert len(made) == 1 and made[0].version in again.stdout and "reused" in again.stdout


def test_a_step_that_fails_is_named(api, micro_run):
    root = micro_run[0]
    arguments = ("stage:filter", "--host", api.url, *MICRO, "--set", "filter.min_person_px=302")
    gone = f"images_manifest={root}/images/0000000000000000/manifest.json"
    with pytest.raises(RunFailed, match="ended as FAILED: filter: there is no images of version 0000000000000000"):
        submit_here(*arguments, "--param", gone, "--wait", "--poll", "0.3", root=root)


def damaged_images(source, root):
    """A root that holds the newest images of another, one picture's bytes damaged: (manifest, source, partition)."""
    artifact = Store(str(source)).latest("images")
    entry = artifact.partitions("images")[pid := sorted(artifact.partitions("images"))[0]][0]
    table = pq.read_table(source / entry.path)
    column = table.schema.get_field_index("bytes")
    bad = pa.array([b"damaged", *table["bytes"].to_pylist()[1:]], table.schema.field(column).type)
    data = parquet_bytes(table.set_column(column, table.schema.field(column), bad))
    files = [
        file_entry(e.path, data, table="images", partition=pid, rows=e.rows) if e == entry else e
        for e in artifact.manifest.files
    ]
    storage = Store(str(root)).storage
    for each in files:
        storage.write(each.path, data if each.path == entry.path else (source / each.path).read_bytes())
    storage.write(f"{artifact.folder}/manifest.json", artifact.manifest.model_copy(update={"files": files}).dump())
    return storage.full(f"{artifact.folder}/manifest.json"), table["source"][0].as_py(), pid


def test_the_log_of_a_submitted_step_that_fails_ends_with_picture_partition_and_command(api, micro_run, tmp_path):
    manifest, source, pid = damaged_images(micro_run[0], root := tmp_path / "root")
    arguments = ("stage:detect", "--host", api.url, *MICRO, "--param", f"images_manifest={manifest}")
    with pytest.raises(RunFailed, match=r"detect: image .* cannot be decoded"):
        submit_here(*arguments, "--wait", "--poll", "0.3", root=root)
    (run,) = api.runs.values()
    lines = [line.strip() for line in run["log"].read_text().splitlines()]
    last = max(index for index, line in enumerate(lines) if line.startswith("the picture that fails: "))
    picture, partition, again = lines[last : last + 3]
    assert len([line for line in lines[last + 3 :] if line]) <= 3  # of kfp.local: a status, a rule, what failed
    assert picture.startswith("the picture that fails: ") and picture.endswith(f"({source})")
    assert f"partition {pid};" in partition
    assert again.startswith(f"run it again: sapiens2 step detect --root {root} --input images=")


def test_options_arrive_in_the_payload(pending_api, micro_run):
    root = micro_run[0]
    options = ("--experiment", "nightly", "--run-name", "first", "--kfp-cache", "--service-account", "curator")
    options += ("--pipeline-root", "s3://b/kfp")
    submit_here("training", "--host", pending_api.url, *MICRO, *options, root=root)
    (run,) = pending_api.runs.values()
    assert (run["display_name"], run["service_account"]) == ("first", "curator")
    assert pending_api.experiments[run["experiment_id"]]["display_name"] == "nightly"
    assert run["runtime_config"]["pipeline_root"] == "s3://b/kfp"
    shards = Store(str(root)).latest("shards")
    assert run["runtime_config"]["parameters"]["shards_manifest"] == f"{root}/{shards.folder}/manifest.json"
    tasks = run["pipeline_spec"]["root"]["dag"]["tasks"].values()
    assert all(task["cachingOptions"]["enableCache"] for task in tasks)


@pytest.mark.parametrize("name", ["full", "curation", "training", *(f"stage:{step}" for step in STEPS)])
def test_every_pipeline_is_taken_by_a_server(pending_api, micro_run, micro_pool, name):
    """Compiled, sent by the real client, and held to the official models and protobufs."""
    pool = ("--pool", micro_pool) if name in ("full", "curation", "stage:ingest") else ()
    submit_here(name, "--host", pending_api.url, *MICRO, *pool, root=micro_run[0])
    (run,) = pending_api.runs.values()
    tasks = [task for task in run["pipeline_spec"]["root"]["dag"]["tasks"] if not task.startswith("importer")]
    if name.startswith("stage:evaluate-"):
        task = name.removeprefix("stage:evaluate-")
        trained = Store(str(micro_run[0])).latest(STEPS[f"finetune-{task}"].latest_name)
        assert f"/{trained.version}/" in run["runtime_config"]["parameters"]["checkpoint_manifest"]
    if name.startswith("stage:"):
        assert len(tasks) == 1 and name.removeprefix("stage:").startswith(tasks[0])  # `finetune` does every task
    else:
        assert len(tasks) > 5


@pytest.mark.parametrize(
    ("when", "trigger"),
    [
        (("--cron", "0 0 3 * * *"), {"cron_schedule": {"cron": "0 0 3 * * *"}}),
        (("--every", "12h"), {"periodic_schedule": {"interval_second": 43200}}),
    ],
)
def test_curation_can_recur(pending_api, micro_pool, tmp_path, capsys, when, trigger):
    options = ("--host", pending_api.url, "--pool", micro_pool, *MICRO, *when, "--retry-failed")
    submit_here("curation", *options, root=tmp_path / "root")
    ((identifier, made),) = pending_api.recurring.items()
    assert made["runtime_config"]["parameters"]["settings"]["overrides"] == {"ingest.retry_failed": True}
    assert made["trigger"] == trigger
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", 1, True)
    assert made["runtime_config"]["parameters"]["pool"] == str(micro_pool)
    assert f"{pending_api.url}/#/recurringrun/details/{identifier}" in capsys.readouterr().out


def test_a_server_out_of_reach_for_a_while_does_not_end_the_following(pending_api, micro_run, capsys):
    pending_api.outages, pending_api.idle_as = 3, "SUCCEEDED"
    submit_here("stage:filter", "--host", pending_api.url, *MICRO, "--wait", "--poll", "0.1", root=micro_run[0])
    assert pending_api.outages == 0 and "succeeded" in capsys.readouterr().out


def test_a_run_that_somebody_cancels_is_an_end(pending_api, micro_run):
    """The official client's own wait does not know this state, and would wait for ever."""
    pending_api.idle_as = "CANCELED"
    with pytest.raises(RunFailed, match="ended as CANCELED"):
        submit_here("stage:filter", "--host", pending_api.url, *MICRO, "--wait", "--poll", "0.1", root=micro_run[0])


def test_the_token_comes_from_the_environment(tmp_path, micro_run, monkeypatch):
    server = KfpApi(tmp_path / "server", execute=False, token=TOKEN)
    command = ("stage:filter", "--host", server.url, *MICRO)
    try:
        monkeypatch.delenv("KFP_EXISTING_TOKEN", raising=False)
        with pytest.raises(ValueError, match="put a valid bearer token into KFP_EXISTING_TOKEN"):
            submit_here(*command, root=micro_run[0])
        monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
        submit_here(*command, root=micro_run[0])
        assert len(server.runs) == 1 and TOKEN not in json.dumps(server.bodies)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("full",), "needs pool: give --pool"),
        (("stage:filter",), "needs detections_manifest, images_manifest, scores_manifest: give --input detections="),
        (("full", "--pool", "s3://b/p", "--param", "settngs=x"), "no parameter 'settngs'"),
        (("everything",), "unknown pipeline 'everything'"),
        (("curation", "--pool", "x", "--set", "filter.min_person_pix=3"), "min_person_px"),
        (("curation", "--pool", "x", "--every", "soon"), "--every 'soon' is no interval"),
        (("curation", "--pool", "x", "--param", "novalue"), "NAME=VALUE"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_sent(pending_api, tmp_path, arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        submit_here(*arguments, "--host", pending_api.url, root=tmp_path / "r")
    assert not pending_api.bodies


def test_what_only_the_cluster_has_to_reach_is_not_asked_from_here(pending_api, monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "DEFAULT_REGION", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    root = "s3://bucket/of the cluster/"
    submit_here("curation", "--host", pending_api.url, "--pool", "s3://bucket/pool", *MICRO, root=root)
    parameters = pending_api.bodies[-1]["runtime_config"]["parameters"]
    assert parameters["root"] == root.rstrip("/")
    sent = len(pending_api.bodies)
    with pytest.raises(ValueError, match="or give --param detections_manifest=URI: then only the cluster has to reach"):
        submit_here("stage:filter", "--host", pending_api.url, *MICRO, root=root)
    with pytest.raises(ValueError, match="keys do not belong into the root's address"):
        submit_here("curation", "--host", pending_api.url, "--pool", "x", *MICRO, root="s3://a:b@bucket/root")
    assert len(pending_api.bodies) == sent


def test_a_host_without_kfp_is_said_in_a_line(tmp_path):
    command = ("submit", "curation", "--pool", "x", "--host", "http://127.0.0.1:9")
    done = sapiens2(*command, root=tmp_path / "r", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "no KFP server answers at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_argument_of_another_type_is_refused(tmp_path):
    package = compile_pipeline("stage:ingest", tmp_path / "ir.yaml")
    with pytest.raises(ValueError, match="'pool' is int 3, and must be STRING"):
        check_arguments(package, {"pool": 3, "root": "r", "settings": {}, "code_version": ""})


def test_the_server_of_these_tests_refuses_what_kfp_would(pending_api, tmp_path):
    """The judge is only as good as its checks: a wrong field, a wrong parameter and a wrong spec all bounce."""
    from kfp_server_api import ApiException

    from pipelines.kfp_server import Server

    os.environ.pop("KFP_EXISTING_TOKEN", None)
    package = compile_pipeline("stage:ingest", tmp_path / "ir.yaml")
    server = Server(pending_api.url)
    good = {"pool": "p", "root": "r", "settings": {}, "code_version": ""}
    with pytest.raises(ValueError, match="missing"):
        server.create_run(package, {"pool": "p"}, experiment="e", name="n")
    with pytest.raises(ValueError, match="unknown"):
        server.create_run(package, good | {"other": "x"}, experiment="e", name="n")
    with pytest.raises(ValueError, match="six fields"):
        server.create_recurring_run(package, good, experiment="e", name="n", cron="0 3 * * *")
    with pytest.raises(ApiException, match="not found"):
        server.client.get_run("no-such-run")
    assert server.create_run(package, good, experiment="e", name="n").identifier in pending_api.runs
    assert len(pending_api.experiments) == 1
