"""Which file an address belongs to: build ids of ELF files and of the kernel."""
