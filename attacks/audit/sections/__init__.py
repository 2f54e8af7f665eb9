"""The sections of an audit, one file each."""
