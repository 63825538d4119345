"""Which of several processes speaks, by what has started them."""

from __future__ import annotations

import pytest

from nabla.core.quiet import main_process

SRUN = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
NAMES = ("NODE_RANK", "LOCAL_RANK", "RANK", "SLURM_JOB_NAME", "SLURM_PROCID", "TORCHELASTIC_RUN_ID", *SRUN)


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({**SRUN, "SLURM_PROCID": "0"}, True),
        ({**SRUN, "SLURM_PROCID": "1"}, False),
        ({**SRUN, "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, True),
        ({**SRUN, "SLURM_PROCID": "1", "SLURM_JOB_NAME": "interactive"}, True),
        ({**SRUN, "SLURM_PROCID": "1", "SLURM_JOB_NAME": "study"}, False),
        ({"SLURM_PROCID": "1"}, True),
        ({**SRUN, "SLURM_PROCID": "1", "TORCHELASTIC_RUN_ID": "a", "RANK": "0", "LOCAL_RANK": "0"}, True),
    ],
)
def test_the_first_process_is_fabrics(variables, first, monkeypatch):
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main_process() is first
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        assert (SLURMEnvironment().global_rank() == 0) is first
