"""One self-contained page from an audit's JSON."""
