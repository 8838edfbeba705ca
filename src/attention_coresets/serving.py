"""Models that run on coresets: the public door to `attention_coresets.models.serving` and to compressed prompts."""

from attention_coresets.models.serving import *  # noqa: F403
from attention_coresets.models.serving import __all__ as _serving
from attention_coresets.models.whole.prompt import PromptCache, attach, compress_prompt
from attention_coresets.models.whole.prompt_files import load_prompt, save_prompt

_PROMPTS = [PromptCache, attach, compress_prompt, load_prompt, save_prompt]
__all__ = [*_serving, *(each.__name__ for each in _PROMPTS)]
