"""From trials to figures: statistics, pooling over targets, and comparisons between twins."""
