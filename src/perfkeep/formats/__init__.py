"""Files in and out. Nothing here asks the kernel: a snapshot opens on any machine."""
