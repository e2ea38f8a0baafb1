"""A tiny random Llama with a tokenizer learnt for it: everything that takes a model can be tried with it in
seconds."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.files.sealed import sealed_folder
from instruction_modelling.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
VOCABULARY = 1024
CONTEXT_LENGTH = 2048


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer, which knows any text: BOS `<s>` in front, EOS `</s>`, no pad, no chat
    template.

    Args:
        texts: what its merges are learnt from; the same texts give the same tokenizer.
        vocabulary: the most tokens it may have, 258 (the bytes, BOS and EOS) or more; few texts give fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS, EOS],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    engine.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, engine.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def random_llama(tokenizer: "PreTrainedTokenizerFast", seed: int = 0) -> "LlamaForCausalLM":
    """Return a float32 Llama of random weights for `tokenizer`: two layers, tied embeddings, about 0.34
    million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=max(VOCABULARY, len(tokenizer)),
        hidden_size=96,
        intermediate_size=320,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


def conversation_texts(files: Iterable[Path], max_bad_rows: int = 0) -> list[str]:
    """Return the messages of JSON Lines files, each behind its Tülu header, so that the headers are learnt
    too.

    Raises:
        UserError: a file cannot be read, or more than `max_bad_rows` of its rows.
    """
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations

    texts = []
    for path in files:
        file = read_conversations(path)
        check_bad_rows(file, max_bad_rows)
        texts += [
            f"<|{message.role}|>\n{message.content}\n"
            for conversation in file.conversations
            for message in conversation.messages
        ]
    return texts


def save_tiny_model(folder: Path, texts: list[str], seed: int = 0) -> int:
    """Save a tiny model and its tokenizer in `folder`, the same bytes for the same texts and seed; return its
    number of parameters.

    Raises:
        UserError: `folder` holds something other than an unchanged model made here, or cannot be written.
    """
    with quiet_libraries(), sealed_folder(folder, f"a tiny random Llama, seed {seed}") as unfinished:
        tokenizer = train_tokenizer(texts)
        model = random_llama(tokenizer, seed)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return model.num_parameters()
