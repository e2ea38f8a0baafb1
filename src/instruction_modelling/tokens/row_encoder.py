"""Conversations to rows of tokens, and the encoder that a script's options ask for."""

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.chat.defaults import not_read, read_variables, require_read, today, with_defaults
from instruction_modelling.chat.formats import ChatFormat, load_chat_format
from instruction_modelling.chat.settings import ChatSettings
from instruction_modelling.chat.spans import Rendered, SpanKind
from instruction_modelling.chat.template import TemplateFormat
from instruction_modelling.cpu import old_objects_left_alone
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import BadRow, Conversation, ConversationFile
from instruction_modelling.rows.json_lines import snippet
from instruction_modelling.tokens.beside import documents, rendered_beside
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence, token_factors
from instruction_modelling.tokens.encoder import TextEncoder, Tokens
from instruction_modelling.tokens.placed import changed_messages, check_loss_spans
from instruction_modelling.tokens.released_masks import ReleasedMasks
from instruction_modelling.tokens.weights import WeightPolicy, deciding_characters, own_positions, span_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the cache's key: to be raised when the meaning of what is cached changes.
CACHE_LAYOUT = 7
# Rows that are rendered and tokenised together, and their characters beyond which there are fewer of them.
ROWS_AT_ONCE = 1024
CHARACTERS_AT_ONCE = 2**22


class RowEncoder:
    """Conversations to rows of tokens, with one tokenizer, chat format and maximum length."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        chat_format: ChatFormat,
        max_seq_length: int,
        released: bool = False,
    ):
        """Take what decides about ids and kinds; `released`: derive the released code's masks, too,
        which are defined for the Tülu format alone."""
        self.chat_format, self.max_seq_length = chat_format, max_seq_length
        self.text_encoder = TextEncoder(tokenizer)
        self._released = ReleasedMasks(tokenizer, max_seq_length) if released else None
        state = self.text_encoder.fingerprint()
        # Templates write the tokens by their names (`eos_token`), which the engine does not know.
        names = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
        parts = [state, names, chat_format.identity, max_seq_length, released, CACHE_LAYOUT]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def note_unread_variables(self, file: ConversationFile) -> None:
        """Count, among the file's unknown keys, the template variables of its rows that no template reads."""
        given = file.facts().variables
        for name in not_read(self.chat_format.identity, given):
            file.unknown_keys[f"chat_template_kwargs {name}"] = given[name]

    def encode(self, conversations: Iterable[Conversation]) -> Iterator[EncodedRow | BadRow]:
        """Yield each conversation in order, encoded or, where it cannot be, as a `BadRow`."""
        with old_objects_left_alone():
            yield from self._encode_all(conversations)

    def _encode_all(self, conversations: Iterable[Conversation]) -> Iterator[EncodedRow | BadRow]:
        batch: list[tuple[Conversation, tuple[Rendered, ...] | BadRow]] = []
        characters = 0
        for conversation in conversations:
            try:
                sequences = self.chat_format.sequences(conversation)
                check_loss_spans(conversation, sequences)
                if conversation.text_beside:
                    self._refuse_released()
                    sequences = (*sequences, rendered_beside(conversation, sequences))
                item: tuple[Rendered, ...] | BadRow = sequences
                characters += sum(len(rendered.text) for rendered in sequences)
            except RowRefused as refused:
                item = _refused(conversation, refused)
            batch.append((conversation, item))
            if len(batch) == ROWS_AT_ONCE or characters > CHARACTERS_AT_ONCE:
                yield from self._encode_batch(batch)
                batch, characters = [], 0
        yield from self._encode_batch(batch)

    def _encode_batch(
        self, batch: Sequence[tuple[Conversation, tuple[Rendered, ...] | BadRow]]
    ) -> Iterator[EncodedRow | BadRow]:
        texts = [rendered for _, item in batch if not isinstance(item, BadRow) for rendered in item]
        # The released code lets the tokenizer read control tokens in content.
        tokens = iter(self.text_encoder.encode(texts, control_text_is_text=self._released is None))
        for conversation, item in batch:
            if isinstance(item, BadRow):
                yield item
                continue
            own = [rendered for rendered in item if not rendered.is_beside]
            sequences = [self._sequence(conversation, rendered, next(tokens)) for rendered in own]
            try:
                for rendered in item[len(own) :]:
                    sequences += documents(sequences, rendered, next(tokens))
            except RowRefused as refused:
                yield _refused(conversation, refused)
            else:
                yield EncodedRow(conversation, tuple(sequences), changed_messages(conversation, own))

    def _refuse_released(self) -> None:
        if self._released is not None:
            raise RowRefused(
                "text_beside under released masks",
                "the released code's masks know no text beside a conversation; take --mask_style exact",
            )

    def _sequence(self, conversation: Conversation, rendered: Rendered, tokens: Tokens) -> EncodedSequence:
        deciding = deciding_characters(tokens, rendered)
        kinds, messages, straddling = span_kinds(tokens, rendered, deciding)
        positions, length = own_positions(tokens, rendered, deciding), self.max_seq_length
        spans = {index: message.loss_spans for index, message in enumerate(conversation.messages)}
        spans = {index: of_message for index, of_message in spans.items() if of_message}
        factors = token_factors(conversation, spans, messages, positions) if spans else None
        kept = Tokens(
            tokens.ids[:length],
            tokens.start[:length],
            tokens.end[:length],
            tokens.is_control[:length],
            tokens.control_text,
        )
        return EncodedSequence(
            rendered,
            kept,
            kinds[:length],
            messages[:length],
            positions[:length],
            owned_tokens(rendered, kept, kinds[:length], messages[:length]),
            self._released.trained(conversation, kept.ids) if self._released else None,
            None if factors is None else factors[:length],
            tokens_cut=max(0, len(tokens.ids) - length),
            straddling=straddling,
        )


def _refused(row: Conversation, refused: RowRefused) -> BadRow:
    return BadRow(row.row, row.line, row.id, refused.reason, refused.detail)


def owned_tokens(rendered: Rendered, tokens: Tokens, kinds: np.ndarray, messages: np.ndarray) -> np.ndarray:
    """Return bool[n]: the tokens that a sequence owns, by place and message, never by weight.

    It owns what lies behind the last message of the sequence before it, other than texts of earlier messages
    that the template repeats there; definitions of tools belong to the first sequence."""
    if not rendered.part:
        return np.ones(len(tokens.ids), dtype=bool)
    repeated = ((messages >= 0) & (messages < rendered.first_message)) | (kinds == SpanKind.TOOLS)
    return (tokens.start >= rendered.owned_start) & ~repeated


@dataclass(frozen=True)
class TemplateDefaults:
    """What a run gives its chat template (`chat.defaults`)."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    """For every row that has none of its own."""
    date: datetime.date | None = None
    """What the template writes as today's date; None for the day on which it is rendered."""
    settings: ChatSettings = field(default_factory=ChatSettings)
    """What stands in front of the template beside them."""

    @classmethod
    def read(
        cls, text: str | None, date: datetime.date | None = None, settings: ChatSettings | None = None
    ) -> "TemplateDefaults":
        """Return those of --chat_template_kwargs, with this date or today's.

        Raises:
            UserError: as `read_variables`.
        """
        return cls(read_variables(text), date or today(), settings or ChatSettings())


def row_encoder(  # noqa: PLR0913 (each is an option of the scripts)
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: str,
    max_seq_length: int,
    released: bool = False,
    threads: int | None = None,
    defaults: TemplateDefaults = TemplateDefaults(),
) -> RowEncoder:
    """Return the encoder from conversations to tokens that training, scoring and the inspector share.

    Args:
        chat_format: as `load_chat_format` takes it.
        released: give the released code's masks too.
        threads: that tokenise; None for all cores. The first encoding of a process fixes them.
        defaults: of the chat template; they go into the tokenizer's own too, with which it is saved.

    Raises:
        UserError: the format is not known, or reads none of the variables, or the released masks were asked
            for with another than Tülu's.
    """
    if threads:
        # Before the format is loaded, which encodes a probe.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    loaded = _load_format(chat_format, tokenizer, defaults)
    if released and loaded.name != "tulu":
        raise UserError(
            "--mask_style released (--recipe released) is defined for the Tülu format, and the rows get the "
            f"chat template of the {'tokenizer' if loaded.name == 'tokenizer' else f'file {loaded.name}'}: "
            "give --chat_format tulu, or --mask_style exact"
        )
    return RowEncoder(tokenizer, loaded, max_seq_length, released)


def require_user_end(encoder: RowEncoder, policy: WeightPolicy, file: ConversationFile) -> None:
    """Refuse a weight of what ends a user's turn where nothing ends one.

    Raises:
        UserError: the chat format has nothing for that, or a row is plain text.
    """
    if not policy.by_kind()[SpanKind.USER_END]:
        return
    if not encoder.chat_format.user_end:
        raise UserError(
            f"--loss_weights user_end: the chat format {encoder.chat_format.name} writes no control token "
            "behind a user's text whatever comes next, so nothing would weigh that; leave user_end out"
        )
    plain = file.facts().plain.first
    if plain is not None:
        raise UserError(
            f"--loss_weights user_end: {file.place(plain)} is a plain prompt and its completion, with "
            "nothing that ends a user's turn; give such rows as messages, or leave user_end out"
        )


def _load_format(choice: str, tokenizer: "PreTrainedTokenizerBase", defaults: TemplateDefaults) -> ChatFormat:
    """Return the chat format of this name, with defaults in front of its template."""
    before, variables = tokenizer.chat_template, defaults.variables
    texts = before.values() if isinstance(before, dict) else [] if before is None else [before]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"the tokenizer's chat_template is {snippet(before)}; it must be a text, or an object of texts "
            "by name: mend its tokenizer_config.json, or take it out and give --chat_format"
        )

    def with_own(template: str) -> str:
        return defaults.settings.written_before(with_defaults(template, variables, defaults.date))

    if isinstance(before, dict):
        tokenizer.chat_template = {name: with_own(template) for name, template in before.items()}
    elif before:
        tokenizer.chat_template = with_own(before)
    loaded = load_chat_format(choice, tokenizer)
    if loaded.name == "tulu":
        if variables:
            raise UserError(
                "--chat_template_kwargs: the Tülu format has no variables; leave it out, or give another "
                "--chat_format"
            )
        if defaults.settings.end_of_turn is not None:
            raise UserError(
                "--end_of_turn: the Tülu format ends a response by itself, with the EOS token; leave it out"
            )
        return loaded
    if loaded.name == "tokenizer":
        require_read(before, variables)
        return loaded
    require_read(loaded.template, variables)
    changed = with_own(loaded.template)
    return loaded if changed == loaded.template else TemplateFormat(tokenizer, changed, loaded.name)
