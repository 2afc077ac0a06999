"""The one door to the kernel: system calls, owned fds, tracefs, sysfs and feature probes."""
