"""``python -I -S .../seccomp_floor/runtime RUNTIME ARGUMENT...``, as the launcher starts it: nothing of site-packages but us."""

import sys

if "seccomp_floor" not in sys.modules:  # started by path, so that no `site` was needed to find us
    sys.path.append(__file__.rpartition("/seccomp_floor/")[0])

from seccomp_floor.runtime.wrapper import main

sys.exit(main(sys.argv[1], sys.argv[2:]))
