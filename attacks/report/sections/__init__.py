"""The sections of a report, one file each; ``attacks.report.page`` lists them."""
