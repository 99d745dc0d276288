"""Independent judges of filters: a solver (z3) and the running kernel; and programs to put before them."""
