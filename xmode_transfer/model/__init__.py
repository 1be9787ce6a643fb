"""Records and pure rules for all packages: no I/O, no clock, no logging."""
