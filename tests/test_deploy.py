"""What the Dockerfile does, done in a bare folder; and that the files of deploy/ agree."""

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from storage.home import Home
from storage.pretrained import install_pretrained

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = re.sub(r" *\\\n *", " ", (ROOT / "Dockerfile").read_text())
COMPOSE = (ROOT / "deploy/compose.yaml").read_text()
NGINX = (ROOT / "deploy/nginx.conf").read_text()
SERVE = """# Only the home and the folder for temporary files can be written to.
set -e
mount --make-rprivate /
mount --bind "$ALEXNET_HOME" "$ALEXNET_HOME"
mount --bind "$TMPDIR" "$TMPDIR"
mount -o remount,bind,ro /
! touch "$1/written" 2>/dev/null
cd "$1"
exec "${@:2}"
"""


def instructions(name: str) -> list[str]:
    return re.findall(rf"^ *{name} +(.+)$", DOCKERFILE, re.MULTILINE)


def copied() -> list[tuple[str, str]]:
    """From and to, of everything that the image gets from the project."""
    pairs = []
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            *sources, target = line.split()
            pairs += [(source, target) for source in sources]
    return pairs


def last_command() -> list[str]:
    return json.loads(instructions("CMD")[-1])


def test_everything_that_is_copied_exists_and_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    sources = {source for source, _ in copied()}
    assert {"app", "model", "templates", "gunicorn.conf.py"} <= sources
    for source in sources:
        assert (ROOT / source).exists(), source
    assert sources == set(allowed)
    assert "*" in lines


def test_the_image_runs_as_nobody_in_particular() -> None:
    (user,) = instructions("USER")
    assert any(re.search(rf"^useradd --system .* {user} &&", line) for line in instructions("RUN"))
    assert "ALEXNET_HOME=/var/lib/alexnet" in DOCKERFILE
    assert instructions("VOLUME") == ["/var/lib/alexnet"]


def test_ports_paths_and_names_agree() -> None:
    port = instructions("EXPOSE")[0]
    assert f":{port}" in last_command()[2]
    assert f"127.0.0.1:{port}/readyz" in DOCKERFILE
    assert f'--bind, "127.0.0.1:{port}"' in COMPOSE
    assert f"proxy_pass http://127.0.0.1:{port}/;" in NGINX
    name = re.search(r"server_name (\S+);", NGINX)
    prefix = re.search(r"location (/\w+)/ {", NGINX)
    assert name
    assert prefix
    assert f"ALEXNET_HOSTS: {name[1]} 127.0.0.1" in COMPOSE
    assert f"https://127.0.0.1{prefix[1]}/readyz" in COMPOSE
    for kind in ("pem", "key"):
        assert f"/etc/ssl/{name[1]}.{kind}:ro" in COMPOSE
        assert f"/etc/ssl/{name[1]}.{kind};" in NGINX
    assert "./nginx.conf:" in COMPOSE
    assert "- home:/var/lib/alexnet" in COMPOSE


def test_compose_describes_four_services_with_health_checks() -> None:
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(COMPOSE)
    services = found["services"]
    assert set(services) == {"tables", "application", "database", "proxy"}
    assert all("healthcheck" in services[name] for name in ("application", "database", "proxy"))
    for name in ("tables", "application"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
    used = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])}
    assert {name for name in used if not name.startswith((".", "$"))} == set(found["volumes"])
    assert services["tables"]["command"] == ["flask", "db", "upgrade"]


def test_the_unit_starts_the_server_that_the_documentation_names() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy/alexnet.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith('/.venv/bin/gunicorn "app:create_app()"')
    assert service["ExecStart"].startswith(service["WorkingDirectory"])
    assert f"ALEXNET_HOME=/var/lib/{service['StateDirectory']} " in service["Environment"]
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("true", "strict")


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (ROOT / "deploy/alexnet.service").read_text()
    file = tmp_path / "alexnet.service"
    file.write_text(unit.replace("/opt/alexnet/.venv/bin/gunicorn", sys.executable))
    words = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if "Failed to" in said and "alexnet.service" not in said:
        pytest.skip(f"systemd-analyze does not run here: {said.splitlines()[0]}")
    assert [line for line in said.splitlines() if "alexnet.service" in line] == []


def ask(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.slow
def test_what_is_copied_serves_from_a_file_system_that_cannot_be_written_to(
    tmp_path: Path,
) -> None:
    """The steps of the Dockerfile without a container, the packages being those of the tests."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a folder read-only takes root's rights")
    image, home, temporary = (tmp_path / name for name in ("image", "home", "tmp"))
    for folder in (image, home, temporary):
        folder.mkdir()
    for source, target in copied():
        place = image / target / (Path(source).name if target.endswith("/") else "")
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / source, place, ignore=ignored)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    # As docs/serving.md says of a new home.
    run = install_pretrained(Home(root=home))
    if run is None:
        pytest.skip("no weights ship with this copy of the project")
    (home / "weights.safetensors").symlink_to(run.weights.relative_to(home))
    program, *rest = last_command()
    rest[rest.index("0.0.0.0:8000")] = "127.0.0.1:0"
    words = [sys.executable, "-m", program, *rest]
    server = subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", SERVE, "bash", str(image), *words],
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "ALEXNET_HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr
        line = server.stderr.readline()
        found = re.fullmatch(r"Serving at (http://127\.0\.0\.1:\d+) .*\n", line)
        assert found, line + server.stderr.read()
        for path in ("/livez", "/readyz", "/"):
            status, body = ask(f"{found[1]}{path}")
            assert status == 200, body
    finally:
        server.send_signal(signal.SIGINT)
        rest_of_log = server.communicate(timeout=60)[1]
    assert server.returncode == 0
    assert "Traceback" not in rest_of_log
    assert not list(image.rglob("__pycache__"))
