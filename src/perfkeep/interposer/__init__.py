"""The extended perf_event ABI for programs that nobody changed, by seccomp user notification."""
