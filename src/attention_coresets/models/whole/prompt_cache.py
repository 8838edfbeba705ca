"""The cache of a compressed prompt, which nothing changes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from attention_coresets.models.serving.caches import ModelCache, cache_bytes, coreset_layers
from attention_coresets.models.whole.marks import Marks

_SHOWN = 5  # heads of largest error that are named


class PromptCache(DynamicCache):
    """The cache of a prompt that was compressed, to be continued any number of times: nothing changes it.

    Pass it to `model.generate(ids, past_key_values=cache)`, with all tokens of the prompt and the new ones in `ids`, to
    a forward, or to `continuation`, with the new ones alone. It knows which samples were padded, and refuses a
    mask or positions that do not fit; `generate` must be given the mask of a padded batch, and a forward on the branch
    that the first one extends mask and positions. A batch whose size is a multiple of its samples continues each of
    them several times. `print` shows what it keeps. `attach` makes another copy of the model ready for it.

    Parameters
    ----------
    cache : ModelCache
        Its layers with full attention hold coresets.
    errors : Float[Tensor, "samples layers kv"]
        For each KV head, the QUANTILE of the norms of its output's error, through the output projection, over the
        typical norm of the residual stream: at queries of the prompt's last positions, moved behind it, to which
        neither tokens nor weights were fitted (SnapKV, TOVA and H2O do score tokens by them, unmoved). NaN for a sample
        or a `calibration` too short to hold any out.
    full_bytes : int
        Memory of the whole cache of the prompt.
    marks : Marks
        Of the model that made it.
    """

    def __init__(
        self,
        cache: ModelCache,
        errors: Float[Tensor, "samples layers kv"],
        full_bytes: int,
        marks: Marks,
    ) -> None:
        vars(self).update(vars(cache))
        self.errors, self.full_bytes, self.marks = errors, full_bytes, marks

    def __copy__(self) -> DynamicCache:
        """Returns a cache as any other, of the same layers."""
        twin = DynamicCache.__new__(DynamicCache)
        own = ("errors", "full_bytes", "marks")
        vars(twin).update({name: x for name, x in vars(self).items() if name not in own})
        return twin

    def update(self, *args, **kwargs):
        """Raises ValueError: a prompt's cache is neither extended nor changed."""
        raise ValueError(
            "a compressed prompt is not extended or changed; call `attach(model, cache)`, so that this model continues "
            "a branch of it, or pass `branch(cache)`"
        )

    update_conv_state = update_recurrent_state = update_indexer = update
    reset = crop = reorder_cache = batch_repeat_interleave = batch_select_indices = update

    @property
    def bytes(self) -> int:
        """Returns the memory of what is kept."""
        return cache_bytes(self)

    @property
    def sizes(self) -> Int[Tensor, "samples layers kv"]:
        """Returns how many tokens each KV head keeps."""
        layers = [[core.sizes for core in layer.cores or []] for layer in coreset_layers(self)]
        return torch.tensor(layers).transpose(0, 1)

    def __repr__(self) -> str:
        sizes, layers = self.sizes, coreset_layers(self)
        read = torch.tensor([core.context for core in layers[0].cores or []])  # of each sample, without padding
        share, context = float((sizes.double() / read[:, None, None]).mean()), layers[0].context
        lines = [
            f"PromptCache: {share:.1%} of {context} tokens, {int(sizes.min())} to {int(sizes.max())} a KV head; "
            f"{self.bytes / 1e6:.1f} MB of {self.full_bytes / 1e6:.1f} MB",
        ]
        if not bool(self.errors.isnan().all()):
            worst, heads = self.errors.nan_to_num(-torch.inf).amax(0).flatten().sort(descending=True)
            kv, index = self.errors.shape[-1], [layer.index for layer in layers]
            named = ", ".join(
                f"layer {index[int(h) // kv]} head {int(h) % kv}: {float(e):.2g}"
                for e, h in zip(worst[:_SHOWN], heads[:_SHOWN], strict=True)
            )
            lines.append(
                "error of a head's output over the residual stream, 95th percentile at held-out queries: "
                f"median {float(self.errors.nanmedian()):.2g}; largest {named}"
            )
        return "\n".join(lines)
