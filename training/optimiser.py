"""The optimiser of a run, and the precision that its network computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from training.settings import RunSettings


def optimiser_of(settings: RunSettings) -> keras.optimizers.Optimizer:
    """Give AdamW with a warm-up and a cosine; in float16 with a loss that is scaled so that gradients do not vanish."""
    chosen = settings.optimiser
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=chosen.learning_rate / max(1, chosen.warmup_steps),
        decay_steps=max(1, chosen.steps - chosen.warmup_steps),
        alpha=0.01,
        warmup_target=chosen.learning_rate,
        warmup_steps=chosen.warmup_steps,
    )
    optimiser = keras.optimizers.AdamW(schedule, weight_decay=chosen.weight_decay)
    if settings.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimiser)
    return optimiser


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Build layers that compute in that precision; weights, logits and losses stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
