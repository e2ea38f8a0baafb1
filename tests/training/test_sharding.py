"""What is refused, and what is filled in, on launchers that shard."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType

from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.training import sharding


def options(**changes: Any) -> FinetuneOptions:
    return FinetuneOptions(model_name_or_path="m", train_file=["f"], **changes).with_recipe()


def accelerator(
    deepspeed: dict[str, Any] | None = None, fsdp: int | None = None, precision: str = "no"
) -> Any:
    """An accelerator as a launcher with this DeepSpeed configuration or version of FSDP makes it."""
    plugin = SimpleNamespace(deepspeed_config=deepspeed) if deepspeed is not None else None
    state = SimpleNamespace(
        deepspeed_plugin=plugin, fsdp_plugin=SimpleNamespace(fsdp_version=fsdp, mixed_precision_policy=None)
    )
    kind = DistributedType.DEEPSPEED if plugin else DistributedType.FSDP if fsdp else DistributedType.NO
    return SimpleNamespace(
        state=state,
        is_fsdp2=fsdp == 2,
        distributed_type=kind,
        mixed_precision=precision,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("flag", ["use_qlora", "use_8bit_optimizer"])
def test_what_cannot_be_sharded_is_refused(flag: str) -> None:
    for name, each in (("DeepSpeed", accelerator(deepspeed={})), ("FSDP", accelerator(fsdp=2))):
        with pytest.raises(
            UserError, match=f"--{flag}: .* cannot be sharded by {name}; launch without {name}"
        ):
            sharding.refuse_what_cannot_be_sharded(options(**{flag: True}), each)
        sharding.refuse_what_cannot_be_sharded(options(), each)
    sharding.refuse_what_cannot_be_sharded(options(**{flag: True}), accelerator())


def test_muon_needs_whole_matrices() -> None:
    for name, each in (("DeepSpeed", accelerator(deepspeed={})), ("FSDP", accelerator(fsdp=2))):
        with pytest.raises(
            UserError, match=f"--optimizer muon on {name}.*plain data-parallel processes work"
        ):
            sharding.refuse_what_cannot_be_sharded(options(optimizer="muon"), each)
    sharding.refuse_what_cannot_be_sharded(options(optimizer="muon"), accelerator())


def test_what_deepspeed_is_told() -> None:
    config: dict[str, Any] = {"gradient_clipping": "auto"}
    chosen = options(per_device_train_batch_size=3, gradient_accumulation_steps=5)
    sharding.configure_deepspeed(chosen, accelerator(deepspeed=config))
    assert config == {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_force_ds_cpu_optimizer": False,
    }
    config = {"zero_force_ds_cpu_optimizer": True}
    sharding.configure_deepspeed(options(clip_grad_norm=-1), accelerator(deepspeed=config))
    assert config["gradient_clipping"] == 0 and config["zero_force_ds_cpu_optimizer"] is True


def test_the_first_version_of_fsdp_is_refused() -> None:
    with pytest.raises(UserError, match=r"first version of FSDP: set fsdp_version: 2"):
        sharding.set_up_fsdp(accelerator(fsdp=1))


def test_under_fsdp_sums_of_gradients_and_losses_stay_in_float32() -> None:
    half = accelerator(fsdp=2, precision="bf16")
    sharding.set_up_fsdp(half)
    policy = half.state.fsdp_plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (
        torch.bfloat16,
        torch.float32,
        None,
    )
    assert policy.cast_forward_inputs is False
    full = accelerator(fsdp=2)
    sharding.set_up_fsdp(full)
    assert full.state.fsdp_plugin.mixed_precision_policy is None


def test_scoring_computes_in_what_deepspeed_shards_in() -> None:
    assert sharding.scoring_dtype(accelerator(), None) == torch.float32
    assert sharding.scoring_dtype(accelerator(), "bfloat16") == torch.bfloat16
    half = accelerator(deepspeed={}, precision="bf16")
    assert sharding.scoring_dtype(half, None) == torch.bfloat16 == sharding.scoring_dtype(half, "bfloat16")
    with pytest.raises(UserError, match=r"--dtype float32: DeepSpeed computes in .*bfloat16 here"):
        sharding.scoring_dtype(half, "float32")
