"""NRI on the wire: the mux, ttrpc, and the plugin service that containerd calls."""
