"""Jobs that start with the libraries imported: processes of their own, with the results of any other."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from script_loader import SRC
from tiny import make_tiny_model

from instruction_modelling.comparison.warm_start import SharedProcess, WarmProcess, leaves_cuda_alone
from instruction_modelling.models.attention import PER_EXAMPLE

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


LOADING = """
import json, os, sys
import torch
from pathlib import Path
from instruction_modelling.models.loading import load_model
found = [load_model(sys.argv[1], torch.float32, name) for name in sys.argv[3:]]
facts = [os.getpid(), [id(model) for model in found], [model.config._attn_implementation for model in found]]
Path(sys.argv[2]).write_text(json.dumps(facts))
sys.exit(7 if "eager" in sys.argv else 0)
"""


def test_scripts_in_one_process_load_their_model_once_whatever_its_attention(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    make_tiny_model(tmp_path / "other")
    script = tmp_path / "loading.py"
    script.write_text(LOADING)
    shared = SharedProcess()

    def facts(*words: str, model: str = "model", kept_for: str = "a") -> list:
        out = tmp_path / "facts.json"
        shared.keep_for(kept_for)
        command = [sys.executable, str(script), str(tmp_path / model), str(out), *words]
        code = shared.start(command, dict(os.environ)).wait()
        assert code == (7 if "eager" in words else 0)
        return json.loads(out.read_text())

    process, (model,), attention = facts("sdpa")
    assert attention == ["sdpa"]
    assert facts(PER_EXAMPLE) == [process, [model], [PER_EXAMPLE]]
    assert facts("sdpa", "sdpa") == [process, [model, model], ["sdpa", "sdpa"]]
    # Another model takes its place; another name, and a script that failed, end the process.
    assert facts("sdpa", model="other")[0] == process
    other, *_ = facts("eager", kept_for="b")
    assert other != process
    assert facts("sdpa", kept_for="b")[0] not in (process, other)
    shared.close()
    shared.close()


def test_one_process_measures_a_model_with_the_bytes_of_a_process_for_each_script(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    for part in ("train", "test"):
        lines = [{"prompt": f"{part} {i} " * (i + 1), "completion": f"answer {i}"} for i in range(6)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made: dict[str, dict[str, bytes]] = {}
    shared = SharedProcess()
    for kind in ("alone", "shared"):
        # The responses say where they lie.
        out = tmp_path / "out"
        for part in ("train", "test"):
            read = ["--model_name_or_path", str(tmp_path / "model"), "--chat_format", "tulu", "--output_dir"]
            read += [str(out / part), "--eval_file", str(tmp_path / f"{part}.jsonl")]
            responses = ["--responses", str(out / part / "responses.jsonl")]
            for script, words in (
                ("compute_loss", read),
                ("generate", [*read, "--max_new_tokens", "5"]),
                ("compute_bleu", responses),
                ("score_responses", responses),
            ):
                command = [sys.executable, str(SRC / f"{script}.py"), *words]
                shared.keep_for("a")
                start = shared.start if kind == "shared" else WarmProcess
                assert start(command, {**os.environ, "PYTHONPATH": str(SRC)}).wait() == 0
        made[kind] = {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*.json*"))
            # How long it took stands in it.
            if path.name != "generation.json"
        }
        # A log of its own for each script.
        for part in ("train", "test"):
            assert (out / part / "train.log").read_text().count("packed examples attend by") == 1
        shutil.rmtree(out)
    shared.close()
    assert made["alone"] == made["shared"]
    names = {"losses.jsonl", "summary.json", "responses.jsonl", "bleu.json", "scores.json", "scores.jsonl"}
    assert set(made["shared"]) == {f"{part}/{name}" for part in ("train", "test") for name in names}


MANY = """
import os, sys, logging
from pathlib import Path
print("says", sys.argv[1])
seen = [os.getpid(), os.environ.get("OF"), len(sys.path), __name__]
with Path(sys.argv[2]).open("a") as out:
    out.write(repr(seen) + "\\n")
if sys.argv[1] == "raises":
    raise ValueError("not this")
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
sys.exit({"ends": None, "words": "in words", "seven": 7}[sys.argv[1]])
"""


def test_scripts_follow_one_another_in_one_process_until_one_fails(tmp_path: Path) -> None:
    script, out, log = tmp_path / "many.py", tmp_path / "seen.txt", tmp_path / "log"
    script.write_text(MANY)
    shared, codes = SharedProcess(keeps_models=False), []
    for number, how in enumerate(("ends", "ends", "seven", "ends", "raises", "words", "killed", "ends")):
        started = shared.start([sys.executable, str(script), how, str(out)], {"OF": str(number)}, log)
        codes.append(started.wait())
        assert started.poll() == codes[-1]
    shared.close()
    assert codes == [0, 0, 7, 0, 1, 1, -9, 0]
    seen = [ast.literal_eval(line) for line in out.read_text().splitlines()]
    pids = [pid for pid, *_ in seen]
    # The same process goes on after a 0 alone.
    assert [pids[n] == pids[n + 1] for n in range(7)] == [True, True, False, True, False, False, False]
    assert [of for _, of, *_ in seen] == [str(n) for n in range(8)]
    assert len({length for _, _, length, _ in seen}) == 1 and {name for *_, name in seen} == {"__main__"}
    assert log.read_text().count("says ends") == 4 and "ValueError: not this" in log.read_text()


def test_what_jobs_are_forked_from_has_not_touched_cuda() -> None:
    assert leaves_cuda_alone()


SLEEPING = """
import sys, time
from pathlib import Path
from instruction_modelling.errors import run_main

def main():
    Path(sys.argv[1]).touch()
    time.sleep(60)

run_main(main)
"""


def test_a_signal_ends_the_script_at_hand_and_the_next_one_has_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    (tmp_path / "quick.py").write_text("import sys\nsys.exit('what failed, in words')\n")
    shared = SharedProcess()
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        begun = tmp_path / f"begun{number}"
        shared.start([sys.executable, str(tmp_path / "sleeping.py"), str(begun)], dict(os.environ))
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        shared.send_signal(number)
        assert shared.wait() == code
    shared.send_signal(signal.SIGTERM)
    assert shared.start([sys.executable, str(tmp_path / "quick.py")], dict(os.environ)).wait() == 1
    shared.close()


def test_a_script_in_a_process_that_others_had_before_counts_its_own_time(tmp_path: Path) -> None:
    """What a run says of its start is not what all runs before it took."""
    script, out = tmp_path / "counting.py", tmp_path / "seconds"
    script.write_text(
        "import sys, time\nfrom instruction_modelling.runs.pace import seconds_of_script\n"
        "time.sleep(float(sys.argv[1]))\nprint(seconds_of_script(), file=open(sys.argv[2], 'w'))\n"
    )
    shared, seen = SharedProcess(keeps_models=False), []
    for seconds in ("1", "0"):
        assert shared.start([sys.executable, str(script), seconds, str(out)], dict(os.environ)).wait() == 0
        seen.append(float(out.read_text()))
    shared.close()
    assert seen[0] >= 1 > seen[1]
