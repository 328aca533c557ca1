"""The model card: what weights are and need, and what is not known about them, in Markdown."""

import torch

from model.network.architectures import find_variant
from model.network.config import AlexNetConfig, Resize
from model.weights.checkpoint import Weights, list_network_shapes
from model.weights.header import UNKNOWN

SQUARES: dict[Resize, str] = {
    "bicubic": "short side scaled to {side} pixels (bicubic, antialiased), the central square cut",
    "bilinear": "short side scaled to {side} pixels (bilinear, antialiased), the central square "
    "cut",
    "warp": "both sides scaled to {side} pixels (bilinear, not antialiased)",
}
MAX_NAMED_CLASSES = 10
"""Labels that the card lists."""


def write_model_card(weights: Weights, *, measured: str = "", limits: str = "") -> str:
    """Write a model card in Markdown.

    measured: further sections, which follow the table of facts. limits: further paragraphs on what
    the weights cannot do. Both are Markdown.
    """
    config, provenance = weights.config, weights.provenance
    labels = [known.label for known in weights.classes]
    named = ", ".join(labels[:MAX_NAMED_CLASSES])
    more = f" and {len(labels) - MAX_NAMED_CLASSES:,} more" * (len(labels) > MAX_NAMED_CLASSES)
    rows = {
        "weights": weights.identity,
        "network": f"`{config.net}`, {count_parameters(config):,} parameters",
        "trained on": provenance.folder.name if provenance.folder else provenance.data,
        "training images": format_known_count(provenance.images),
        "epochs": format_known_count(provenance.epochs),
        "recipe": provenance.preset,
        "imported from": describe_origin(weights),
        "top-1 error, centre crop": format_error(provenance.top1_error),
        "top-5 error, centre crop": format_error(provenance.top5_error),
        "top-1 error, ten crops": format_error(provenance.ten_crop_top1_error),
        "top-5 error, ten crops": format_error(provenance.ten_crop_top5_error),
        "made": f"{provenance.created}, commit {provenance.commit}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
    return f"""# {describe_title(weights)}

{describe_known_network(config)}

| | |
|---|---|
{table}
{
        measured
        and f'''
{measured.strip()}
'''
    }
## Input

{describe_preprocessing(weights)}

## Output

{len(labels):,} probabilities, in this order: {named}{more}. Averaged over ten crops, the four \
corners and the centre with their mirror images, they are those that the errors with ten crops \
refer to. The features are the values of the last hidden layer after its nonlinearity, of the \
centre crop.

## Use

```python
from model import load

for guess in load("weights.safetensors").classify("photo.jpg"):
    print(f"{{guess.probability:.1%}} {{guess.label}}")
```

## Limits

The network knows its {len(labels):,} labels and nothing else: to any image it gives one of them. \
Errors are given only where they were measured by this project; "{UNKNOWN}" stands for what \
nobody has recorded. Imported weights are subject to the terms of those who published them, and \
all weights to those of the photographs that they were trained on.
{
        limits
        and f'''
{limits.strip()}
'''
    }"""


def describe_title(weights: Weights) -> str:
    """Name the weights."""
    provenance = weights.provenance
    if provenance.source:
        return provenance.source
    data = provenance.folder.name if provenance.folder else provenance.data
    return f"AlexNet trained on {data}"


def describe_known_network(config: AlexNetConfig) -> str:
    """Describe the network in a sentence, as its variant is described."""
    variant = find_variant(config)
    description = variant.description if variant else config.net
    return f"A network of the AlexNet family: {description}."


def describe_origin(weights: Weights) -> str:
    """Describe the file that weights were imported from; empty for those that were trained here."""
    provenance = weights.provenance
    if not provenance.source:
        return ""
    return f"{provenance.source} (SHA-256 {provenance.source_sha256 or UNKNOWN})"


def describe_preprocessing(weights: Weights) -> str:
    """Describe how an image becomes the network's input."""
    config = weights.config
    colour = weights.mean.mean(dim=(1, 2)).tolist()
    plain = bool(torch.equal(weights.mean, weights.mean[:, :1, :1].expand_as(weights.mean)))
    mean = ", ".join(f"{value:.3f}" for value in colour)
    subtracted = f"the colour {mean}" if plain else f"the mean image, whose mean colour is {mean}"
    divided = ""
    if config.channel_scales:
        divisors = ", ".join(f"{config.input_scale * scale:.3f}" for scale in config.channel_scales)
        divided = f", divided by {divisors}"
    elif config.input_scale != 1:
        divided = f", divided by {config.input_scale:g}"
    return (
        f"Red, green and blue from 0 to 255; {SQUARES[config.resize].format(side=config.side)}; "
        f"minus {subtracted}{divided}; crops of {config.crop} × {config.crop} pixels."
    )


def count_parameters(config: AlexNetConfig) -> int:
    """Count a network's parameters."""
    return sum(torch.Size(shape).numel() for shape in list_network_shapes(config).values())


def format_known_count(count: int | None) -> str:
    """Format a count, or say that it is unknown."""
    return UNKNOWN if count is None else f"{count:,}"


def format_error(error: float | None) -> str:
    """Format an error rate, or say that nobody has measured it here."""
    return f"{UNKNOWN}, not measured" if error is None else f"{100 * error:.2f} %"
