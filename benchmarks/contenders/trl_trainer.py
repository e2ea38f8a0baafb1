"""TRL's SFTTrainer, with the settings under which it is fastest."""

from pathlib import Path
from typing import Any

from benchmarks.contenders.plain_loop import TULU, adapters
from benchmarks.counts import add_counts, count_batch
from benchmarks.gate import Gate
from benchmarks.work import Work


def train(gate: Gate, work: Work) -> None:
    """Train on the prepared tokens, or with `raw` on the rows' messages; a turn is an update."""
    import torch
    from datasets import Dataset, load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = work.settings
    (own,) = settings["contenders"].values()
    tokenizer: Any = AutoTokenizer.from_pretrained(work.model)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = TULU
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if own.get("raw"):
        data = load_dataset("json", data_files=str(work.rows_file()), split="train")
    else:
        data = Dataset.from_list(work.tokens())
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    make = trainer_class()
    trainer = make(
        gate,
        model=model,
        args=sft_config(work, own),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=adapters(work.lora_rank) if settings["lora"] else None,
    )
    if own.get("packing"):
        trainer.facts = {"sees_others": documents_see_each_other(trainer)}
    trainer.train()
    gate.finished(**trainer.facts)
    trainer.save_model(str(Path(work.scratch) / "model"))


def sft_config(work: Work, own: dict[str, Any]) -> Any:
    """Return TRL's settings: no checkpoints, no logs, no clipping, the fused optimiser, and no gradient
    checkpointing, which only saves memory."""
    import torch
    from trl import SFTConfig

    packing = bool(own.get("packing"))
    return SFTConfig(
        output_dir=str(Path(work.scratch) / "trl"),
        per_device_train_batch_size=own["size"],
        gradient_accumulation_steps=1 if packing else work.examples // own["size"],
        max_steps=1 if own.get("fresh") else work.steps,
        max_length=work.max_seq_length,
        packing=packing,
        bf16=work.settings["precision"] == "bf16",
        learning_rate=2e-5,
        optim="adamw_torch_fused",
        max_grad_norm=0.0,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        train_sampling_strategy="sequential",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        use_cpu=not torch.cuda.is_available(),
    )


def trainer_class() -> Any:
    """Return an SFTTrainer that waits for its turns and counts what it is given."""
    from transformers import TrainerCallback
    from trl import SFTTrainer

    class Turns(TrainerCallback):
        def __init__(self, trainer: Any, gate: Gate):
            self.trainer, self.gate = trainer, gate

        def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
            self.trainer.end_step()
            self.gate.turn(**self.trainer.facts)

    class Trainer(SFTTrainer):
        def __init__(self, gate: Gate, **keywords: Any):
            self.facts: dict[str, Any] = {}
            self._losses: list[float] = []
            self._counts: list[dict[str, int]] = []
            super().__init__(**keywords)
            self.add_callback(Turns(self, gate))

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            self._counts.append(count_batch(inputs["labels"], inputs.get("attention_mask")))
            loss = super().training_step(model, inputs, *arguments, **keywords)
            self._losses.append(float(loss))
            return loss

        def end_step(self) -> None:
            if self._losses:
                self.facts = {"loss": sum(self._losses), **add_counts(self._counts)}
            self._losses, self._counts = [], []

    return Trainer


def documents_see_each_other(trainer: Any) -> bool:
    """Return whether a packed document's logits change with what stands before it."""
    import torch

    pack = next(row for row in trainer.train_dataset if len(row["seq_lengths"]) > 1)
    begin = pack["seq_lengths"][0]
    other = {**pack, "input_ids": [(id_ + 1) % 256 for id_ in pack["input_ids"][:begin]]}
    other["input_ids"] += pack["input_ids"][begin:]
    trainer.model.eval()
    logits = []
    for row in (pack, other):
        inputs = trainer.data_collator([row])
        inputs.pop("labels")
        inputs = {
            name: value.to(trainer.args.device) if torch.is_tensor(value) else value
            for name, value in inputs.items()
        }
        with torch.no_grad():
            logits.append(trainer.model(**inputs, use_cache=False).logits[0, begin:].float())
    trainer.model.train()
    scale = float(logits[0].abs().max())
    return float((logits[0] - logits[1]).abs().max()) > 1e-3 * scale
