"""A tiny Llama with a real tokenizer, made in a second: what tests load where a user loads a model."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
_TEXT = [
    "Which river flows through Paris? The Seine flows through Paris.",
    "Name the capital of Norway. Oslo.",
    "Add 17 and 25. The sum is 42.",
    "<|system|>\nAnswer in a few words.\n<|user|>\nTranslate the word water to French.\n<|assistant|>\nEau.",
    "Explain how a bicycle stays upright, and say why it falls when it stands still.",
    "def add(a, b):\n    return a + b\n",
    "Write a list of three fruits: apples, pears, plums.",
]


def make_tiny_tokenizer(chat_template: str | None = None, vocab: int = 512) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer that knows any text: at most `vocab` tokens, BOS `<s>` in front, EOS `</s>`,
    no pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    engine.train_from_iterator(_TEXT, trainer)
    engine.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, engine.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_tiny_model(folder: Path, chat_template: str | None = None, vocab: int = 512, seed: int = 0) -> Path:
    """Save a random Llama of about 0.35M parameters and its tokenizer in `folder`; the same bytes for the
    same arguments.

    Weights are float32, untied, of standard deviation 0.2, so that answers differ between prompts.

    Args:
        folder: where the model goes; made if absent.
        chat_template: the tokenizer's Jinja chat template; none for the Tülu format.
        vocab: rows of the embeddings, at least the tokenizer's size.
        seed: of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer(chat_template, vocab)
    config = LlamaConfig(
        vocab_size=max(vocab, len(tokenizer)),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
