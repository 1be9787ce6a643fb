"""Pure records and rules that everybody shares: no I/O, no clock, no logging."""
