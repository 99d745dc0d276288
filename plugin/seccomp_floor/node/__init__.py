"""The node daemon: everything that reads or writes the world around the pure core."""
