"""Refuses models that checkpoint gradients: they read every token without the cache of those before it."""

from torch import nn


def check_no_checkpointing(module: nn.Module) -> None:
    """Raises ValueError where layers would be run without their cache, to be run again for gradients."""
    if any(part.training and getattr(part, "gradient_checkpointing", False) for part in module.modules()):
        raise ValueError(
            "gradient checkpointing drops the cache that this package works on; "
            "call model.eval() or model.gradient_checkpointing_disable()"
        )
