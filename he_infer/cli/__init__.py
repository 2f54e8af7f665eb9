"""The command ``he-infer``: parse, call the library, print. Nothing here computes."""
