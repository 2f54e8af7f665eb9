"""Other engines, driven through their own public interface on the same network and weights."""
