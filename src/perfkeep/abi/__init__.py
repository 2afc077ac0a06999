"""Numbers and structs of the kernel's perf interface. No I/O; imports nothing of perfkeep."""
