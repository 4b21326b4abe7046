"""Networks: backbones, temporal memory, heads and criteria, as plain torch modules."""
