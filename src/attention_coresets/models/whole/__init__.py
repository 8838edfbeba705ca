"""Whole-model coresets: one budget for all KV heads of a model, spent by what a replay of the context looks at.

    reading = read(prefilled, ids)                         # replays the context once
    coresets = ReplayFit().choose(Measured(reading), count) # tokens and log-weights, head by head
    cache = keep(prefilled, {layer: [heads] for layer, heads in coresets.items()})

`attention_coresets.serving.compress_prompt` does all of it in one call.
"""
