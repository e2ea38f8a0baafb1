"""What contenders import, loaded before their processes are forked; a peer that is not here is missed when
its turn comes."""

import contextlib
import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import accelerate.accelerator
import torch
import transformers.models.llama.modeling_llama
import transformers.trainer

import instruction_modelling.training.loss_model

with contextlib.suppress(ImportError):
    import trl.trainer.sft_trainer  # noqa: F401

__all__ = ["accelerate", "instruction_modelling", "torch", "transformers"]
