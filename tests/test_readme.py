"""The README is what a newcomer types: its commands are the ones that are checked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from wsiseg.demo.synthesis import synthesize_slide

ROOT = Path(__file__).resolve().parents[1]
README, CONTRIBUTING = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")
)


def blocks(language, text=README):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in fences if name == language]


def test_ci_runs_the_readmes_test_command():
    (command,) = [block.strip() for block in blocks("bash") if "pytest" in block]
    assert command.replace("pip install ", "pip install -q ") in (ROOT / ".ci/run").read_text()


def test_the_session_and_the_python_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthesize_slide("CMU-1-Small-Region.svs", width=1536, height=1024, seed=5)
    (session,) = blocks("console")
    command, listed = re.fullmatch(r"\$ (.*)\n\$ ls out\n(.*)\n", session).groups()
    wsiseg = shutil.which("wsiseg", path=str(Path(sys.executable).parent))
    subprocess.run([wsiseg, *command.split()[1:]], check=True, capture_output=True)
    assert sorted(listed.split()) == sorted(path.name for path in Path("out").iterdir())
    for code in blocks("python"):
        exec(code, {})


def test_the_tree_names_what_is_there():
    tree = blocks("", CONTRIBUTING)[-1]
    for name in re.findall(r"[\w/]+(?:\.py|/)", tree):
        assert (ROOT / "wsiseg" / name).exists() or (ROOT / name).exists(), name


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(((?!http)[^)#]+)", README + CONTRIBUTING):
        assert (ROOT / target).exists(), target
