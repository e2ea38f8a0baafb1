"""The check, before a run, that decoder and head in two parts give the model's own logits, packed or not."""

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import causal_model
from instruction_modelling.training.hidden_states import hidden_states, output_head, packed_keywords


@torch.no_grad()
def check_model(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    """Compare the logits of decoder and head with the model's own, on two short made-up examples; with
    `packing`, those of the two packed too.

    Raises:
        UserError: the logits differ from the model's own, or packed examples see each other.
    """
    training = model.training
    model.eval()
    try:
        _compare(model, packing, device)
    except ValueError as error:
        # The packed attention's refusal.
        raise UserError(f"{type(causal_model(model)).__name__}: {error}") from error
    finally:
        model.train(training)


def _compare(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    head = output_head(model)
    ids = (torch.arange(23, device=device) * 37 + 5) % min(head.vocabulary, 1000)
    examples = [ids[:9], ids[9:]]
    exact = next(model.parameters()).dtype == torch.float32 and not torch.is_autocast_enabled()
    tolerance = 1e-3 if exact else 0.1
    alone = []
    for example in examples:
        row = example[None]
        positions = torch.arange(row.shape[1], device=device)[None]
        boundaries = torch.tensor([0, row.shape[1]], dtype=torch.int32, device=device) if packing else None
        mask = None if packing else torch.ones_like(row)
        logits = head.logits_of(hidden_states(model, row, positions, mask, boundaries)).float()[0]
        expected = causal_model(model)(
            input_ids=row,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            **packed_keywords(boundaries),
        ).logits.float()[0]
        if not torch.allclose(logits, expected, atol=tolerance, rtol=tolerance):
            raise UserError(
                f"{type(causal_model(model)).__name__} makes its logits in a way that is not known here "
                f"(largest difference {(logits - expected).abs().max():.3g}); it cannot be trained with this "
                "loss"
            )
        alone.append(logits)
    if packing:
        positions = torch.cat([torch.arange(len(e), device=device) for e in examples])[None]
        boundaries = torch.tensor([0, 9, 23], dtype=torch.int32, device=device)
        packed = head.logits_of(hidden_states(model, ids[None], positions, None, boundaries)).float()[0]
        if not torch.allclose(packed, torch.cat(alone), atol=tolerance, rtol=tolerance):
            raise UserError(
                f"{type(causal_model(model)).__name__} lets packed examples see each other (largest "
                f"difference {(packed - torch.cat(alone)).abs().max():.3g}): train it without --packing"
            )
