"""The launchers that compute one run on several processes, and the cases run by one launch of each."""

import json
from collections.abc import Sequence
from pathlib import Path

from same_run import Case, Measured
from training_runs import free_port, launch

WORKER = "tests/support/same_run_worker.py"
BACKENDS: dict[str, str] = {
    "plain": "torchrun --nproc_per_node {processes} --master_port {port}",
    "ZeRO-3": "accelerate launch --use_deepspeed --deepspeed_config_file "
    "ds_configs/stage3_no_offloading_accelerate.conf "
    "--num_machines 1 --num_processes {processes} --mixed_precision no --main_process_port {port}",
    "ZeRO-3 offloading": "accelerate launch --use_deepspeed --deepspeed_config_file "
    "ds_configs/stage3_offloading_accelerate.conf "
    "--num_machines 1 --num_processes {processes} --mixed_precision no --main_process_port {port}",
    "FSDP2": "accelerate launch --config_file fsdp_configs/fsdp2.yaml --num_processes {processes} "
    "--main_process_port {port}",
}


def run_cases(  # noqa: PLR0913 (the parts of one launch)
    backend: str, cases: Sequence[Case], place: Path, folder: Path, processes: int = 2, timeout: float = 240
) -> list[Measured]:
    """What each case gave on `processes` processes of the backend, in one launch.

    Raises:
        AssertionError: the launch failed; with the end of what it said.
        subprocess.TimeoutExpired: the processes hang.
    """
    folder.mkdir(parents=True)
    listed = folder / "cases.json"
    listed.write_text(json.dumps([[case.layout, case.arm] for case in cases]))
    command = BACKENDS[backend].format(processes=processes, port=free_port()).split()
    outcome = launch([*command, WORKER, place, folder, listed], timeout=timeout)
    assert outcome.code == 0, outcome.err[-5000:]
    return [Measured.load(folder / f"case_{number}") for number in range(len(cases))]
