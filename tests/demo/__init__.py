"""``make demo``: the floor on a real node, from nothing, in a minute."""
