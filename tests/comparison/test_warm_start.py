"""Jobs that start with the libraries imported: processes of their own, with the results of any other."""

import json
import os
import subprocess
import sys
from pathlib import Path

from script_loader import SRC
from tiny import make_tiny_model

from instruction_modelling.comparison.warm_start import WarmProcess

FACTS = """
import json, os, sys
warm = "torch" in sys.modules
import instruction_modelling
from pathlib import Path
facts = {"warm": warm, "library": instruction_modelling.__file__, "argv": sys.argv,
    "environment": dict(os.environ), "session": os.getsid(0) == os.getpid(),
    "server_session": os.getsid(os.getppid())}
Path(sys.argv[1]).write_text(json.dumps(facts))
sys.exit(5)
"""


def test_a_warm_job_has_its_own_words_environment_session_and_this_library(tmp_path: Path) -> None:
    script, out = tmp_path / "facts.py", tmp_path / "facts.json"
    script.write_text(FACTS)
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"A_WORD": "b c"}
    assert WarmProcess([sys.executable, str(script), str(out)], env=env).wait() == 5
    facts = json.loads(out.read_text())
    assert facts["warm"] and facts["session"] and facts["argv"] == [str(script), str(out)]
    assert facts["environment"] == env
    assert Path(facts["library"]) == SRC / "instruction_modelling" / "__init__.py"
    # A signal to the whole group of this process leaves the server, and so the waiting for jobs, alone.
    assert facts["server_session"] != os.getsid(0)


def test_a_warm_job_writes_the_bytes_of_a_process_that_imports_everything_itself(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"prompt": f"question {i} " * (i + 1), "completion": f"answer {i}"}) + "\n"
            for i in range(5)
        )
    )
    made = {}
    for kind in ("warm", "cold"):
        command = [
            sys.executable,
            str(SRC / "compute_loss.py"),
            "--model_name_or_path",
            str(tmp_path / "model"),
        ]
        command += ["--eval_file", str(rows), "--output_dir", str(tmp_path / kind), "--chat_format", "tulu"]
        env = {**os.environ, "PYTHONPATH": str(SRC)}
        process = WarmProcess(command, env=env) if kind == "warm" else subprocess.Popen(command, env=env)
        assert process.wait() == 0
        made[kind] = [(tmp_path / kind / name).read_bytes() for name in ("losses.jsonl", "summary.json")]
    assert made["warm"] == made["cold"] and len(made["warm"][0].splitlines()) == 5
