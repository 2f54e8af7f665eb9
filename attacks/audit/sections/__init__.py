"""The sections of an audit, one file each; ``attacks.audit.run`` lists them."""
