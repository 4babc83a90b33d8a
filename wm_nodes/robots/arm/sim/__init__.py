"""The simulated arm behind the same driver interface as a real one."""
