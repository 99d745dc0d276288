"""Seccomp Floor: closes kernel doors for every container of a node, and proves it."""
