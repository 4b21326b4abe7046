"""PETR with denoising, and Focal-PETR: the single-frame ancestors, on EVA-02 ViT-Large.

The same classes without memory. Focal-PETR is PETR with the 2D head; see the recipes.
"""

from .streampetr_vit_l import CODE_WEIGHTS, dataset_spec, model

head = model.head
head.num_queries = 900
head.num_propagated = head.num_remembered = head.memory_length = 0

_code_weights = [*CODE_WEIGHTS[:8], 0.2, 0.2]  # one frame says little about velocity
model.criterion.detection.code_weights = _code_weights
model.criterion.detection.matcher.code_weights = _code_weights
