"""What the small models of families.py are run on."""

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


def text() -> Inputs:
    """Token ids ``[2, 9]``."""
    return {"input_ids": torch.arange(4, 22).reshape(2, 9)}


def text_to_text() -> Inputs:
    return {**text(), "decoder_input_ids": torch.arange(4, 12).reshape(2, 4)}


def image() -> Inputs:
    """Pixels ``[2, 3, 16, 16]``: four patches."""
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def image_and_text() -> Inputs:
    return {**image(), **text()}


def image_in_text() -> Inputs:
    """Four places of each text, id 99, are the patches of an image."""
    ids = text()["input_ids"]
    ids[:, 1:5] = 99
    return {**image(), "input_ids": ids}


def large_image() -> Inputs:
    return {"pixel_values": torch.randn(1, 3, 64, 64)}


def patches_in_text() -> Inputs:
    """One image of 4 x 4 patches (3 channels, 2 frames, 4 x 4 pixels), which four places of a text stand for."""
    ids = torch.arange(4, 14).reshape(1, 10)
    ids[:, 2], ids[:, 3:7] = 98, 99
    kinds = (ids == 99).int()
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(16, 96),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": kinds,
    }


def spectrogram() -> Inputs:
    """Log-mel features ``[1, 8, 40]`` and four tokens."""
    return {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": torch.arange(4, 8).reshape(1, 4)}


def waveform() -> Inputs:
    return {"input_values": torch.randn(1, 800)}
