"""Visual encoders: their weight files and the key layouts these come in."""
