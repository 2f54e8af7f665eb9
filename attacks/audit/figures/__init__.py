"""From cells to figures: pooling over targets, statistics, findings, the audit document."""
